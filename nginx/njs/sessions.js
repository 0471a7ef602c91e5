// Sessions of rules: the client is given a token that names a backend, an endpoint and when the session began, and shows it
// with its next requests. What it names are digests, which lead to the endpoints that there are and nowhere else; so
// nobody is told an address, and nobody can choose one.

import crypto from 'crypto';

const TOKEN = /^([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-z]{1,9})$/;
// Seconds by which the clock of another instance may be ahead.
const SKEW = 60;

// The backend of the request's session, of those that its rule has; empty without one.
function backend(r) {
    const session = shown(r, settingsOf(r));
    return session ? session.backend : '';
}

// Its endpoint, of the one backend of the location; empty without one.
function endpoint(r) {
    const session = shown(r, settingsOf(r));
    return session ? session.endpoint : '';
}

// What the client is told with the answer: the value of Set-Cookie, or of the header; empty where a cookie holds still.
// Asked for when the headers of an answer are sent, so the endpoint is the one that served.
function given(r) {
    const settings = settingsOf(r);
    const address = served(r.variables);
    if (!settings || !address) {
        return '';
    }
    const name = Object.keys(settings.backends)[0];
    const id = crypto.createHash('sha256').update(settings.backends[name] + ' ' + address).digest('hex').slice(0, 16);
    const session = shown(r, settings);
    const isHeld = session !== null && session.endpoint === id;
    if (isHeld && settings.cookie) {
        return '';
    }
    const token = name + '-' + id + '-' + (isHeld ? session.began : now()).toString(36);
    return settings.cookie ? cookie(settings, token) : token;
}

function cookie(settings, token) {
    const lifetime = settings.isPermanent ? '; Max-Age=' + settings.lifetime : '';
    const secure = settings.isSecure ? '; Secure' : '';
    return settings.cookie + '=' + token + '; Path=' + settings.path + lifetime + secure + '; HttpOnly; SameSite=Strict';
}

function settingsOf(r) {
    const text = r.variables.infergate_session;
    return text ? JSON.parse(text) : null;
}

// The first session of the rule that is not over. Cookies of other paths may have the same name.
function shown(r, settings) {
    if (settings === null) {
        return null;
    }
    const tokens = settings.cookie ? cookies(r, settings.cookie) : [r.headersIn[settings.header] || ''];
    for (let i = 0; i < tokens.length; i++) {
        const found = TOKEN.exec(tokens[i]);
        if (found !== null && settings.backends[found[1]] !== undefined) {
            const age = now() - parseInt(found[3], 36);
            if (age >= -SKEW && !(age >= settings.lifetime)) {
                return { backend: found[1], endpoint: found[2], began: parseInt(found[3], 36) };
            }
        }
    }
    return null;
}

// Source: RFC 6265, section 4.2.1.
function cookies(r, name) {
    const pairs = (r.headersIn.Cookie || '').split(';').map((pair) => pair.trim());
    return pairs.filter((pair) => pair.startsWith(name + '=')).map((pair) => pair.slice(name.length + 1));
}

// The address that the answer came from: of a pool what the picker or the relay said, of a Service the last that was asked.
// While nginx does without the picker a session stays where it was.
function served(variables) {
    if (variables.infergate_mode === 'relayed') {
        return variables.upstream_http_x_gateway_destination_endpoint || '';
    }
    if (variables.infergate_pool) {
        return variables.infergate_endpoint || '';
    }
    return (variables.upstream_addr || '').split(/ : |, /).pop();
}

function now() {
    return Math.floor(Date.now() / 1000);
}

export default { backend, endpoint, given };
