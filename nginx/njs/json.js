// Finds the member `model` of a JSON object. The last one counts where there are several, as in Python's parsers and the
// picker's. The members of the object itself are read by the grammar. What they hold is passed over: its strings and brackets
// have to fit together, the rest is for the model server to judge. A byte looked at costs 0.1 us here, one searched for none.

// A machine is made for every request that meets a script, with all that modules define at their top. So this is made for
// those alone that come here.
function make() {
    const QUOTE = 34;
    const COMMA = 44;
    const COLON = 58;
    const BACKSLASH = 92;
    const OPEN_BRACKET = 91;
    const CLOSE_BRACKET = 93;
    const OPEN_BRACE = 123;
    const CLOSE_BRACE = 125;

    const SPACE = 32;
    const LETTER_M = 109;
    // The first byte of U+FEFF, which some programs write before a text.
    const MARK = 0xef;

    const NEAR = 16;
    // Bytes.
    const LONGEST_KEY = 30;
    // Bytes of `model` with every letter escaped.
    const LONGEST_NAME = 6 * 4096;
    // Likewise of the longest value that a header can be compared with.
    const LONGEST_SCALAR = 512;
    // Bytes of a number.
    const DEEPEST = 1024;

    const SCALAR = /^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)$/;
    // Steps return where to go on, or one of these: more bytes are needed, or none can help.
    const MORE = -1;
    const BROKEN = -2;

    // A scan as window.js feeds it. `model` is null without one; else it stands between the bytes `from` and `to`, quotes included.
    function scanner() {
        const scan = {
            step: start,
            after: end,
            then: null,
            model: null,
            from: 0,
            to: 0,
            base: 0,
            isNamed: false,
            isBroken: false,
            closers: [],
            ahead: null,
        };
        scan.take = (bytes, isLast) => take(scan, bytes, isLast);
        scan.isOver = () => scan.isBroken;
        return scan;
    }

    function take(scan, bytes, isLast) {
        let at = 0;
        let next = 0;
        scan.ahead = { quote: -1, openBrace: -1, closeBrace: -1, openBracket: -1, closeBracket: -1 };
        while (next >= 0 && next < bytes.length) {
            at = next;
            next = scan.step(scan, bytes, at, isLast);
        }
        at = next >= 0 ? next : at;
        if (next === BROKEN || (isLast && (at < bytes.length || scan.step !== end))) {
            scan.isBroken = true;
            scan.model = null;
        }
        scan.base += at;
        return at;
    }

    // The next step, and the place behind a byte.
    function go(scan, step, at) {
        scan.step = step;
        return at + 1;
    }

    function isWhite(byte) {
        return byte === 32 || byte === 10 || byte === 13 || byte === 9;
    }

    function start(scan, bytes, at, isLast) {
        const byte = bytes[at];
        if (byte === OPEN_BRACE) {
            scan.after = afterValue;
            return go(scan, firstKey, at);
        }
        if (isWhite(byte)) {
            return at + 1;
        }
        if (byte === MARK && scan.base + at === 0) {
            return bytes.length < 3 && !isLast ? MORE : bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : BROKEN;
        }
        // Another value has no members.
        return value(scan, bytes, at, isLast);
    }

    function firstKey(scan, bytes, at, isLast) {
        return bytes[at] === CLOSE_BRACE ? go(scan, end, at) : key(scan, bytes, at, isLast);
    }

    function key(scan, bytes, at, isLast) {
        const byte = bytes[at];
        if (byte !== QUOTE) {
            return isWhite(byte) ? at + 1 : BROKEN;
        }
        if (bytes.length - at < LONGEST_KEY + 2 && !isLast) {
            return MORE;
        }
        const close = closing(bytes, at + 1);
        const length = close - at - 1;
        const first = bytes[at + 1];
        if (length >= 5 && length <= LONGEST_KEY && (first === LETTER_M || first === BACKSLASH)) {
            const written = bytes.toString('utf8', at + 1, close);
            scan.isNamed = written === 'model' || (written.indexOf('\\') >= 0 && decoded(bytes, at, close) === 'model');
        }
        if (close !== MORE && bytes[close + 1] === COLON) {
            scan.step = value;
            return bytes[close + 2] === SPACE ? close + 3 : close + 2;
        }
        return string(scan, colon, close, at + 1);
    }

    // The text of a string between two quotes; null when it holds what is no Unicode, for which JSON.parse writes U+FFFD.
    // Undefined for what is no string of JSON.
    function decoded(bytes, open, close) {
        let text;
        try {
            text = JSON.parse(bytes.toString('utf8', open, close + 1));
        } catch (e) {
            return undefined;
        }
        return text.indexOf('\ufffd') < 0 ? text : null;
    }

    function colon(scan, bytes, at) {
        const byte = bytes[at];
        if (isWhite(byte)) {
            return at + 1;
        }
        if (byte !== COLON) {
            return BROKEN;
        }
        return go(scan, value, at);
    }

    function value(scan, bytes, at, isLast) {
        const byte = bytes[at];
        if (byte <= SPACE && isWhite(byte)) {
            return at + 1;
        }
        if (scan.isNamed) {
            return name(scan, bytes, at, isLast);
        }
        if (byte === QUOTE) {
            const close = closing(bytes, at + 1);
            return close === MORE ? string(scan, scan.after, close, at + 1) : behind(scan, bytes, close);
        }
        if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
            scan.closers = [];
            scan.step = inside;
            return at;
        }
        return scalar(scan, bytes, at, isLast);
    }

    // The value of `model`. What is no string says that there is none.
    function name(scan, bytes, at, isLast) {
        scan.model = null;
        if (bytes[at] === QUOTE) {
            const close = closing(bytes, at + 1);
            if (close === MORE && !isLast && bytes.length - at <= LONGEST_NAME) {
                return MORE;
            }
            if (close !== MORE && close - at <= LONGEST_NAME) {
                scan.model = decoded(bytes, at, close);
                scan.from = scan.base + at;
                scan.to = scan.base + close + 1;
                if (scan.model === undefined) {
                    return BROKEN;
                }
            }
        }
        scan.isNamed = false;
        return value(scan, bytes, at, isLast);
    }

    // Goes on behind a value that ends at `at`, mostly with another member at once.
    function behind(scan, bytes, at) {
        if (scan.after === afterValue && bytes[at + 1] === COMMA) {
            scan.step = key;
            return bytes[at + 2] === SPACE ? at + 3 : at + 2;
        }
        return go(scan, scan.after, at);
    }

    function scalar(scan, bytes, at, isLast) {
        let to = at;
        const length = bytes.length;
        while (to < length && bytes[to] > SPACE && bytes[to] !== COMMA && bytes[to] !== CLOSE_BRACE) {
            if (++to - at > LONGEST_SCALAR) {
                return BROKEN;
            }
        }
        if (to === length && !isLast) {
            return MORE;
        }
        if (!SCALAR.test(bytes.toString('utf8', at, to))) {
            return BROKEN;
        }
        return behind(scan, bytes, to - 1);
    }

    function afterValue(scan, bytes, at) {
        const byte = bytes[at];
        if (isWhite(byte)) {
            return at + 1;
        }
        if (byte === COMMA) {
            return go(scan, key, at);
        }
        if (byte === CLOSE_BRACE) {
            return go(scan, end, at);
        }
        return BROKEN;
    }

    function end(scan, bytes, at) {
        if (!isWhite(bytes[at])) {
            return BROKEN;
        }
        return at + 1;
    }

    // Passes over an object or a list, from one quote or bracket to the next. What people and programs write has few bytes
    // between them, and those are looked at one by one: a step costs half of a search. It is written in one piece, since a call
    // costs as much as three steps.
    function inside(scan, bytes, at) {
        const closers = scan.closers;
        const length = bytes.length;
        let near = at + NEAR;
        while (at < length) {
            const byte = bytes[at];
            if (byte === QUOTE) {
                let close = bytes.indexOf(QUOTE, at + 1);
                if (close <= at + 1 || bytes[close - 1] === BACKSLASH) {
                    close = closing(bytes, at + 1);
                    if (close === MORE) {
                        return string(scan, inside, close, at + 1);
                    }
                }
                // Behind most strings there is one of these, and a space.
                const mark = bytes[close + 1];
                at = mark === COLON || mark === COMMA ? close + 1 : close;
                if (bytes[at + 1] === SPACE) {
                    at++;
                }
                near = at + NEAR;
            } else if (byte < OPEN_BRACKET) {
                if (at > near) {
                    at = search(scan.ahead, bytes, at) - 1;
                    near = at + NEAR;
                }
            } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
                // Their closing partners are two behind them in ASCII.
                if (closers.push(byte + 2) > DEEPEST) {
                    return BROKEN;
                }
            } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
                if (closers.pop() !== byte) {
                    return BROKEN;
                }
                if (closers.length === 0) {
                    return behind(scan, bytes, at);
                }
            }
            at++;
        }
        return at;
    }

    // The next quote or bracket. Where each was last found is kept, so that no byte is searched twice for one.
    function search(ahead, bytes, at) {
        if (ahead.quote < at) {
            ahead.quote = found(bytes, QUOTE, at);
        }
        if (ahead.openBrace < at) {
            ahead.openBrace = found(bytes, OPEN_BRACE, at);
        }
        if (ahead.closeBrace < at) {
            ahead.closeBrace = found(bytes, CLOSE_BRACE, at);
        }
        if (ahead.openBracket < at) {
            ahead.openBracket = found(bytes, OPEN_BRACKET, at);
        }
        if (ahead.closeBracket < at) {
            ahead.closeBracket = found(bytes, CLOSE_BRACKET, at);
        }
        return Math.min(ahead.quote, ahead.openBrace, ahead.closeBrace, ahead.openBracket, ahead.closeBracket);
    }

    function found(bytes, byte, from) {
        const at = bytes.indexOf(byte, from);
        return at < 0 ? bytes.length : at;
    }

    // Goes on with a step behind a string, or within the string where its end is not among the bytes.
    function string(scan, step, close, from) {
        if (close !== MORE) {
            return go(scan, step, close);
        }
        scan.then = step;
        scan.step = rest;
        return from;
    }

    function rest(scan, bytes, at) {
        const close = closing(bytes, at);
        if (close !== MORE) {
            return go(scan, scan.then, close);
        }
        // A backslash that escapes what is not there yet stays.
        const used = bytes.length - (backslashes(bytes, at, bytes.length) % 2);
        return used > at ? used : MORE;
    }

    // Where the string ends whose text begins at `from`.
    function closing(bytes, from) {
        let at = bytes.indexOf(QUOTE, from);
        if (at > from && bytes[at - 1] !== BACKSLASH) {
            return at;
        }
        while (at >= 0 && backslashes(bytes, from, at) % 2 === 1) {
            at = bytes.indexOf(QUOTE, at + 1);
        }
        return at < 0 ? MORE : at;
    }

    // How many there are in a row before `to`.
    function backslashes(bytes, from, to) {
        let at = to;
        while (at > from && bytes[at - 1] === BACKSLASH) {
            at--;
        }
        return to - at;
    }

    return { closing, scanner, search };
}

export default { make };
