// Puts a name in the place of the model that an answer tells, while it passes: the member `model` of its JSON object, and of
// the objects `message` and `response` in it, where Anthropic's and OpenAI's streams have it. In a stream each line with
// data is such an object. Everything else stays as it is, byte by byte. Only what may be such a member is held until its end
// is there.

import json from 'json.js';

const QUOTE = 34;
const COMMA = 44;
const BACKSLASH = 92;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;
const NEWLINE = 10;

const NEAR = 16;
// Bytes looked at one by one before the next quote or bracket is searched.
const LONGEST_KEY = 64;
// Bytes, escapes and quotes included, of the keys that count.
const LONGEST_NAME = 8192;
// Bytes that are held of a name; a longer one passes.
const DATA = 'data:';

const MODEL = 'model';
const HOLDERS = { message: true, response: true };

// `name` is a Buffer with the JSON text that takes the place of a model's.
function restorer(isStream, name) {
    const state = {
        isStream: isStream,
        name: name,
        held: null,
        // Where a line stands: at its beginning, in its data, or in what is none.
        line: isStream ? begin : object,
        depth: 0,
        // Depth of the innermost object whose members count, 0 without one.
        watched: 0,
        key: '',
        isKeyNext: false,
        isInString: false,
        isEscaped: false,
    };
    return { take: (bytes, isLast) => take(state, bytes, isLast) };
}

// The pieces to send on for a piece, in order.
function take(state, piece, isLast) {
    const bytes = state.held ? Buffer.concat([state.held, piece]) : piece;
    const pieces = [];
    const cursor = { sent: 0, pieces: pieces, ahead: { quote: -1, openBrace: -1, closeBrace: -1, openBracket: -1, closeBracket: -1 } };
    let at = 0;
    let hold = -1;
    while (at < bytes.length) {
        let end = bytes.length;
        let isLine = isLast;
        if (state.isStream) {
            const newline = bytes.indexOf(NEWLINE, at);
            end = newline < 0 ? bytes.length : newline;
            isLine = isLast || newline >= 0;
        }
        hold = state.line(state, bytes, at, end, isLine, cursor);
        if (hold >= 0) {
            break;
        }
        at = end;
        if (at < bytes.length) {
            at++;
            reset(state);
        }
    }
    const kept = hold >= 0 ? hold : bytes.length;
    if (kept > cursor.sent) {
        pieces.push(cursor.sent === 0 && kept === bytes.length ? bytes : bytes.subarray(cursor.sent, kept));
    }
    state.held = hold >= 0 ? bytes.subarray(hold) : null;
    return pieces;
}

// A new line.
function reset(state) {
    state.line = begin;
    state.depth = 0;
    state.watched = 0;
    state.isInString = false;
    state.isEscaped = false;
}

// Steps return where bytes are to be held until more come, or -1.
function begin(state, bytes, at, end, isWhole, cursor) {
    if (end - at < DATA.length && !isWhole) {
        return at;
    }
    if (end - at >= DATA.length && bytes.indexOf(DATA, at) === at) {
        state.line = object;
        return object(state, bytes, at + DATA.length, end, isWhole, cursor);
    }
    state.line = other;
    return -1;
}

function other() {
    return -1;
}

// Looks at the bytes of an object, from one quote or bracket to the next.
function object(state, bytes, from, end, isWhole, cursor) {
    let at = from;
    if (state.isInString) {
        at = behindString(state, bytes, at, end);
    }
    let near = at + NEAR;
    while (at < end) {
        const byte = bytes[at];
        if (byte === QUOTE) {
            const close = closing(bytes, at + 1, end);
            const isWatched = state.watched > 0 && state.depth === state.watched;
            if (close < 0) {
                if (isWatched && !isWhole && end - at <= longest(state)) {
                    return at;
                }
                if (isWatched) {
                    told(state, '');
                }
                openString(state, bytes, at + 1, end);
                return -1;
            }
            if (isWatched) {
                if (state.isKeyNext) {
                    told(state, close - at <= LONGEST_KEY ? text(bytes, at, close) : '');
                } else if (state.key === MODEL) {
                    replace(state, bytes, at, close + 1, cursor);
                }
            }
            at = close;
            near = at + NEAR;
        } else if (byte === COMMA) {
            if (state.depth === state.watched) {
                state.isKeyNext = true;
            }
        } else if (byte < OPEN_BRACKET) {
            if (at > near && state.depth !== state.watched) {
                at = Math.min(json.search(cursor.ahead, bytes, at), end) - 1;
                near = at + NEAR;
            }
        } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
            opened(state, byte === OPEN_BRACE);
        } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
            closed(state);
        }
        at++;
    }
    return -1;
}

function opened(state, isObject) {
    const isHolder = state.depth === 1 && state.watched === 1 && HOLDERS[state.key] === true && !state.isKeyNext;
    state.depth += 1;
    if (isObject && (state.depth === 1 || isHolder)) {
        state.watched = state.depth;
        state.isKeyNext = true;
        state.key = '';
    }
}

function closed(state) {
    if (state.depth === state.watched) {
        state.watched -= 1;
        state.key = '';
        state.isKeyNext = false;
    }
    state.depth -= 1;
}

// A key is known; one that counts for nothing is empty.
function told(state, key) {
    if (state.isKeyNext) {
        state.key = key;
        state.isKeyNext = false;
    }
}

function longest(state) {
    return state.isKeyNext ? LONGEST_KEY : state.key === MODEL ? LONGEST_NAME : 0;
}

function text(bytes, open, close) {
    const written = bytes.toString('utf8', open + 1, close);
    if (written.indexOf('\\') < 0) {
        return written;
    }
    try {
        return JSON.parse('"' + written + '"');
    } catch (e) {
        return '';
    }
}

function replace(state, bytes, from, to, cursor) {
    if (from > cursor.sent) {
        cursor.pieces.push(bytes.subarray(cursor.sent, from));
    }
    cursor.pieces.push(state.name);
    cursor.sent = to;
}

// Where a string ends whose text begins at `from`; -1 when that is not before `end`.
function closing(bytes, from, end) {
    const close = json.closing(bytes, from);
    return close >= 0 && close < end ? close : -1;
}

// A string goes on in the next piece.
function openString(state, bytes, from, end) {
    let at = end;
    while (at > from && bytes[at - 1] === BACKSLASH) {
        at--;
    }
    state.isInString = true;
    state.isEscaped = (end - at) % 2 === 1;
}

// Where to go on in a piece that begins within a string.
function behindString(state, bytes, at, end) {
    const from = state.isEscaped ? at + 1 : at;
    const close = from <= end ? closing(bytes, from, end) : -1;
    if (close < 0) {
        if (from <= end) {
            openString(state, bytes, from, end);
        }
        return end;
    }
    state.isInString = false;
    state.isEscaped = false;
    return close + 1;
}

export default { restorer };
