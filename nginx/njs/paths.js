// Replaces the prefix of a path. In JavaScript because nginx's own rewrites need captures (CVE-2026-42945).

// The path and query to send on: $infergate_prefix of the path becomes $infergate_replacement, the rest stays as the
// client wrote it. Where nginx normalised the path (dot segments, repeated slashes), the normalised one is written anew,
// since the raw one may leave the prefix. So it is where the rest begins with an encoded slash: after a host, it would
// become a part of that.
function replaced(r) {
    const prefix = r.variables.infergate_prefix;
    const replacement = r.variables.infergate_replacement;
    const path = r.variables.uri;
    const query = r.variables.is_args + (r.variables.args || '');
    const raw = r.variables.request_uri.split('?', 1)[0];
    const rest = path.slice(prefix.length);
    const rawRest = raw.slice(prefix.length);
    const isAsWritten = raw.startsWith(prefix) && /^(\/|$)/.test(rawRest) && decoded(rawRest) === rest;
    return (replacement + (isAsWritten ? rawRest : encoded(rest)) || '/') + query;
}

function decoded(raw) {
    try {
        return decodeURIComponent(raw);
    } catch (e) {
        return null;
    }
}

function encoded(path) {
    return encodeURI(path).replace(/[?#]/g, (c) => (c === '?' ? '%3F' : '%23'));
}

export default { replaced };
