// Paths that are made of what a request brings.

// Replaces the prefix of a path. In JavaScript because nginx's own rewrites need captures (CVE-2026-42945).

// The path and query to send on: $infergate_prefix of the path becomes $infergate_replacement, the rest stays as the
// client wrote it. Where nginx normalised the path (dot segments, repeated slashes), the normalised one is written anew,
// since the raw one may leave the prefix. So it is where the rest begins with an encoded slash: after a host, it would
// become a part of that.
function replaced(r) {
    const prefix = r.variables.infergate_prefix;
    const replacement = r.variables.infergate_replacement;
    const query = r.variables.is_args + (r.variables.args || '');
    const raw = r.variables.request_uri.split('?', 1)[0];
    const rawRest = raw.slice(prefix.length);
    const rest = hexOf(r.rawVariables.uri).slice(2 * Buffer.from(prefix).length);
    const isAsWritten = raw.startsWith(prefix) && /^(\/|$)/.test(rawRest) && decoded(rawRest) === rest;
    return (replacement + (isAsWritten ? rawRest : encoded(rest)) || '/') + query;
}

// Paths are compared and written as hexadecimal bytes: they need not be UTF-8.
function hexOf(bytes) {
    return Buffer.from(bytes).toString('hex');
}

function decoded(raw) {
    return raw
        .split(/(%[0-9a-fA-F]{2})/)
        .map((part) => (part.charAt(0) === '%' && part.length === 3 ? part.slice(1).toLowerCase() : hexOf(part)))
        .join('');
}

function encoded(hex) {
    return hex.replace(/../g, (code) => {
        const character = String.fromCharCode(parseInt(code, 16));
        return /[A-Za-z0-9\/._~!$&'()*+,;=:@-]/.test(character) ? character : '%' + code.toUpperCase();
    });
}

// The endpoint that was picked, as the name of a socket has it: nginx takes a colon for the end of a socket's path.
function socketName(r) {
    return r.variables.infergate_endpoint.replace(/[\[\]]/g, '').replace(/:/g, '_');
}

export default { replaced, socketName };
