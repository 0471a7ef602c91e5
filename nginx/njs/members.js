// Finds the member `model` of a JSON object that is written as programs write one: no white space but a space behind colons and
// commas, no escapes in the name. It says nothing of any other; those are for json.js, which takes three times as long. What
// it finds is what json.js finds. A call costs as much as five bytes looked at, so there are few, and bytes are searched for.

const QUOTE = 34;
const BACKSLASH = 92;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
const COLON = 58;
const COMMA = 44;
const SPACE = 32;
const POINT = 46;
const ZERO = 48;
const NINE = 57;
const LETTER_M = 109;
const LETTER_O = 111;

// Bytes.
const LONG = 32;
const LONGEST_NAME = 4096;
// The same as in json.js.
const LONGEST_SCALAR = 512;
// As many brackets as a number counts exactly.
const DEEPEST = Math.pow(2, 50);

// Of a whole body: the last `model` as text, and the bytes `from` and `to` between which it stands, quotes included; null where
// that is not certain.
function find(bytes) {
    const last = bytes.length - 1;
    let found = null;
    if (bytes[0] !== OPEN_BRACE || bytes[1] !== QUOTE) {
        return null;
    }
    let at = 1;
    while (true) {
        let close = bytes.indexOf(QUOTE, at + 1);
        if (close < 0 || bytes[close - 1] === BACKSLASH || bytes[close + 1] !== COLON) {
            return null;
        }
        const first = bytes[at + 1];
        const second = bytes[at + 2];
        let isNamed = false;
        // A key that means `model` begins with its letters or an escape.
        if (first === BACKSLASH || (first === LETTER_M && (second === LETTER_O || second === BACKSLASH))) {
            const key = bytes.toString('utf8', at + 1, close);
            if (key.indexOf('\\') >= 0) {
                return null;
            }
            isNamed = key === 'model';
        }
        at = bytes[close + 2] === SPACE ? close + 3 : close + 2;
        const byte = bytes[at];
        if (byte === QUOTE) {
            close = bytes.indexOf(QUOTE, at + 1);
            if (bytes[close - 1] === BACKSLASH) {
                close = closing(bytes, at + 1, close);
            }
            if (isNamed && close > at) {
                const text = close - at <= LONGEST_NAME ? bytes.toString('utf8', at + 1, close) : '';
                // What no header can say as it is: models.js has the reasons.
                const isPadded = bytes[at + 1] === SPACE || bytes[close - 1] === SPACE;
                if (text === '' || isPadded || /[\x00-\x1f\\\x7f\ufffd]/.test(text)) {
                    return null;
                }
                found = { model: text, from: at, to: close + 1 };
            }
        } else if (isNamed) {
            return null;
        } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
            close = inside(bytes, at);
        } else {
            close = scalar(bytes, at);
        }
        if (close < 0) {
            return null;
        }
        if (bytes[close + 1] !== COMMA) {
            return bytes[close + 1] === CLOSE_BRACE && close + 1 === last ? found : null;
        }
        at = bytes[close + 2] === SPACE ? close + 3 : close + 2;
        if (bytes[at] !== QUOTE) {
            return null;
        }
    }
}

// The last byte of an object or a list that begins at `at`, or -1. Its strings and brackets fit together. Messages differ in
// their long strings and have the same bytes between them, which are compared in one piece: from the same brackets the same
// bytes lead to the same ones. The open brackets are one number, a bit for each behind the first: 1 is a brace.
function inside(bytes, at) {
    const length = bytes.length;
    let open = 1;
    // What was between long strings: two ways that it went, and where another one began.
    let wayFrom = 0;
    let wayTo = 0;
    let wayBefore = 0;
    let wayOpen = 0;
    let otherFrom = 0;
    let otherTo = 0;
    let otherBefore = 0;
    let otherOpen = 0;
    let from = -1;
    let before = 0;
    while (at < length) {
        let byte = bytes[at];
        while (byte === QUOTE) {
            let close = bytes.indexOf(QUOTE, at + 1);
            if (bytes[close - 1] === BACKSLASH) {
                close = closing(bytes, at + 1, close);
            }
            if (close < 0) {
                return -1;
            }
            if (close - at > LONG) {
                if (from >= 0) {
                    // What was last goes behind the one before: turns alternate.
                    otherFrom = wayFrom;
                    otherTo = wayTo;
                    otherBefore = wayBefore;
                    otherOpen = wayOpen;
                    wayFrom = from;
                    wayTo = at + 1;
                    wayBefore = before;
                    wayOpen = open;
                    from = -1;
                }
                let end = close + otherTo - otherFrom;
                if (otherBefore === open && end <= length && bytes.compare(bytes, otherFrom, otherTo, close, end) === 0) {
                    at = end - 1;
                    open = otherOpen;
                    continue;
                }
                end = close + wayTo - wayFrom;
                if (wayBefore === open && end <= length && bytes.compare(bytes, wayFrom, wayTo, close, end) === 0) {
                    at = end - 1;
                    open = wayOpen;
                    continue;
                }
                from = close;
                before = open;
            }
            at = close + 1;
            byte = bytes[at];
            if (byte === COLON || byte === COMMA) {
                byte = bytes[++at];
                if (byte === SPACE) {
                    byte = bytes[++at];
                }
            }
        }
        if (byte >= OPEN_BRACKET) {
            if (byte === OPEN_BRACE) {
                open = 2 * open + 1;
            } else if (byte === OPEN_BRACKET) {
                open = 2 * open;
            } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
                const bit = byte === CLOSE_BRACE ? 1 : 0;
                if (open % 2 !== bit) {
                    return -1;
                }
                open = (open - bit) / 2;
                if (open === 1) {
                    return at;
                }
            }
            if (open > DEEPEST) {
                return -1;
            }
        }
        at++;
    }
    return -1;
}

// Where a string ends whose text begins at `from`, given the first quote in it, which has a backslash before it.
function closing(bytes, from, quote) {
    let close = quote;
    while (close >= 0) {
        let at = close;
        while (at > from && bytes[at - 1] === BACKSLASH) {
            at--;
        }
        if ((close - at) % 2 === 0) {
            return close;
        }
        close = bytes.indexOf(QUOTE, close + 1);
    }
    return -1;
}

// The last byte of a number or a literal that begins at `at`, or -1.
function scalar(bytes, at) {
    let to = at;
    let byte = bytes[to];
    // Most are whole numbers, or fractions of one.
    if (byte === ZERO && bytes[to + 1] === POINT && bytes[to + 2] >= ZERO && bytes[to + 2] <= NINE) {
        to += 2;
        byte = NINE;
    }
    if (byte > ZERO && byte <= NINE) {
        while (byte >= ZERO && byte <= NINE) {
            byte = bytes[++to];
        }
        if ((byte === COMMA || byte === CLOSE_BRACE) && to - at <= LONGEST_SCALAR) {
            return to - 1;
        }
    }
    while (byte > SPACE && byte !== COMMA && byte !== CLOSE_BRACE) {
        byte = bytes[++to];
    }
    if (to - at > LONGEST_SCALAR) {
        return -1;
    }
    // An expression takes longer than the rest.
    const text = bytes.toString('utf8', at, to);
    const isOne =
        text === 'true' ||
        text === 'false' ||
        text === 'null' ||
        /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$/.test(text);
    return isOne ? to - 1 : -1;
}

export default { find };
