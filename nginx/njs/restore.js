// Puts a name in the place of the model that an answer tells, while it passes: the member `model` of its JSON object, and of
// the objects `message` and `response` in it, where Anthropic's and OpenAI's streams have it. In a stream each line with
// data is such an object. Keys count as they are written without escapes. Everything else stays as it is, byte by byte.
// Only what may be such a member is held until its end is there.

import scans from 'json.js';

// A machine is made for every request that meets a script, with all that modules define at their top. So this is made for
// those alone that come here.
function make() {
    const json = scans.make();

    const QUOTE = 34;
    const COMMA = 44;
    const BACKSLASH = 92;
    const OPEN_BRACKET = 91;
    const CLOSE_BRACKET = 93;
    const OPEN_BRACE = 123;
    const CLOSE_BRACE = 125;
    const COLON = 58;
    const SPACE = 32;
    const NEWLINE = 10;

    const NEAR = 16;
    // Bytes looked at one by one before the next quote or bracket is searched.
    const LONGEST_KEY = 10;
    // Bytes of the keys that count, with their quotes.
    const LONGEST_NAME = 8192;
    // Bytes that are held of a name; a longer one passes.
    const DATA = [100, 97, 116, 97, 58];
    // `data:`
    const KEY = Buffer.from('"model"');
    // As it is written where nothing is escaped that need not be.

    // What the last key was, as far as it counts.
    const NONE = 0;
    const MODEL = 1;
    const HOLDER = 2;
    const KEYS = Object.assign(Object.create(null), { model: MODEL, message: HOLDER, response: HOLDER });
    const LETTER_M = 109;
    const LETTER_R = 114;

    // `name` is a Buffer with the JSON text that takes the place of a model's. njs gives no memory back before its request ends, so
    // what a piece needs is made once, and no text is made of keys that cannot count.
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
            key: NONE,
            isKeyNext: false,
            isInString: false,
            isEscaped: false,
            // Of the piece under way: where the names begin and end that are replaced, in turns, and how many they are.
            found: [],
            count: 0,
            ahead: { quote: -1, openBrace: -1, closeBrace: -1, openBracket: -1, closeBracket: -1 },
        };
        return { take: (bytes, isLast) => take(state, bytes, isLast) };
    }

    // What to send on for a piece; empty where all of it is held.
    function take(state, piece, isLast) {
        const bytes = state.held ? Buffer.concat([state.held, piece]) : piece;
        const hold = look(state, bytes, isLast);
        const kept = hold >= 0 ? hold : bytes.length;
        state.held = hold >= 0 ? bytes.subarray(hold) : null;
        if (state.count === 0) {
            return kept === bytes.length ? bytes : bytes.subarray(0, kept);
        }
        const sent = replaced(state, bytes, kept);
        state.count = 0;
        return sent;
    }

    // Where bytes are to be held until more come, or -1.
    function look(state, bytes, isLast) {
        const ahead = state.ahead;
        ahead.quote = ahead.openBrace = ahead.closeBrace = ahead.openBracket = ahead.closeBracket = -1;
        let at = 0;
        while (at < bytes.length) {
            let end = bytes.length;
            if (state.isStream) {
                const newline = bytes.indexOf(NEWLINE, at);
                end = newline < 0 ? end : newline;
            }
            const hold = state.line(state, bytes, at, end, isLast || end < bytes.length);
            if (hold >= 0) {
                return hold;
            }
            at = end + 1;
            if (end < bytes.length) {
                reset(state);
            }
        }
        return -1;
    }

    function replaced(state, bytes, kept) {
        const found = state.found;
        let length = kept;
        for (let each = 0; each < 2 * state.count; each += 2) {
            length += state.name.length - (found[each + 1] - found[each]);
        }
        const made = Buffer.allocUnsafe(length);
        let to = 0;
        let from = 0;
        for (let each = 0; each < 2 * state.count; each += 2) {
            to += bytes.copy(made, to, from, found[each]);
            to += state.name.copy(made, to);
            from = found[each + 1];
        }
        bytes.copy(made, to, from, kept);
        return made;
    }

    // A new line.
    function reset(state) {
        state.line = begin;
        state.depth = 0;
        state.watched = 0;
        state.isInString = false;
        state.isEscaped = false;
    }

    // Steps return where bytes are to be held, or -1.
    function begin(state, bytes, at, end, isWhole) {
        if (end - at < DATA.length && !isWhole) {
            return at;
        }
        if (!isData(bytes, at, end) || (isWhole && isPlain(state, bytes, at + DATA.length, end))) {
            state.line = other;
            return -1;
        }
        state.line = object;
        return object(state, bytes, at + DATA.length, end, isWhole);
    }

    // Whether a line is one that needs no more: without a model, or with one before all objects and lists in its object, and no
    // other. So are the events of OpenAI's streams. A byte that is looked at costs 11 bytes of memory, one searched for none.
    function isPlain(state, bytes, at, end) {
        const key = bytes.indexOf(KEY, at);
        if (key < 0 || key >= end) {
            return true;
        }
        const brace = bytes.indexOf(OPEN_BRACE, at);
        if (brace < 0 || brace > key || isBefore(bytes.indexOf(OPEN_BRACE, brace + 1), key)) {
            return false;
        }
        if (isBefore(bytes.indexOf(OPEN_BRACKET, at), key) || bytes[key - 1] === BACKSLASH) {
            return false;
        }
        let from = key + KEY.length;
        if (bytes[from] !== COLON) {
            return false;
        }
        from += bytes[from + 1] === SPACE ? 2 : 1;
        const close = from < end && bytes[from] === QUOTE ? closing(bytes, from + 1, end) : -1;
        if (close < 0 || isBefore(bytes.indexOf(KEY, close), end)) {
            return false;
        }
        find(state, from, close + 1);
        return true;
    }

    function isBefore(at, place) {
        return at >= 0 && at < place;
    }

    function isData(bytes, at, end) {
        if (end - at < DATA.length) {
            return false;
        }
        for (let each = 0; each < DATA.length; each++) {
            if (bytes[at + each] !== DATA[each]) {
                return false;
            }
        }
        return true;
    }

    function other() {
        return -1;
    }

    // Looks at the bytes of an object, from one quote or bracket to the next.
    function object(state, bytes, from, end, isWhole) {
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
                    if (isWatched && state.isKeyNext) {
                        state.key = NONE;
                        state.isKeyNext = false;
                    }
                    openString(state, bytes, at + 1, end);
                    return -1;
                }
                if (isWatched) {
                    if (state.isKeyNext) {
                        state.key = keyOf(bytes, at, close);
                        state.isKeyNext = false;
                    } else if (state.key === MODEL) {
                        find(state, at, close + 1);
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
                    at = Math.min(json.search(state.ahead, bytes, at), end) - 1;
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

    function find(state, from, to) {
        state.found[2 * state.count] = from;
        state.found[2 * state.count + 1] = to;
        state.count += 1;
    }

    function opened(state, isObject) {
        const isHolder = state.depth === 1 && state.watched === 1 && state.key === HOLDER && !state.isKeyNext;
        state.depth += 1;
        if (isObject && (state.depth === 1 || isHolder)) {
            state.watched = state.depth;
            state.isKeyNext = true;
            state.key = NONE;
        }
    }

    function closed(state) {
        if (state.depth === state.watched) {
            state.watched -= 1;
            state.key = NONE;
            state.isKeyNext = false;
        }
        state.depth -= 1;
    }

    function longest(state) {
        return state.isKeyNext ? LONGEST_KEY : state.key === MODEL ? LONGEST_NAME : 0;
    }

    // What a key counts for, between two quotes.
    function keyOf(bytes, open, close) {
        const length = close - open - 1;
        if (length !== 5 && length !== 7 && length !== 8) {
            return NONE;
        }
        const first = bytes[open + 1];
        return first === LETTER_M || first === LETTER_R ? KEYS[bytes.toString('utf8', open + 1, close)] || NONE : NONE;
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

    return { restorer };
}

export default { make };
