// Finds the field `model` of a form (RFC 7578), as uploads of audio and images have it. The last one counts where there are
// several. Files in the form are passed over.

// A machine is made for every request that meets a script, with all that modules define at their top. So this is made for
// those alone that come here.
function make() {
    const LONGEST_HEAD = 16384;
    // Bytes of the headers of a part.
    const LONGEST_NAME = 4096;
    const MORE = -1;
    const BROKEN = -2;

    // The boundary that a Content-Type names; null when it is not that of a form.
    function boundaryOf(contentType) {
        if (!/^\s*multipart\/form-data\s*(?:;|$)/i.test(contentType)) {
            return null;
        }
        const found = /;\s*boundary=(?:"([^"]+)"|([^\s;"]+))/i.exec(contentType);
        return found ? found[1] || found[2] : '';
    }

    // A scan as window.js feeds it. `model` is null without one; else it is the bytes from `from` to `to`.
    function scanner(boundary) {
        const scan = {
            step: first,
            delimiter: '--' + boundary,
            model: null,
            from: 0,
            to: 0,
            base: 0,
            isForm: true,
            isNamed: false,
            isBroken: !boundary,
        };
        scan.take = (bytes, isLast) => take(scan, bytes, isLast);
        scan.isOver = () => scan.isBroken || scan.step === epilogue;
        return scan;
    }

    function take(scan, bytes, isLast) {
        let at = 0;
        let next = scan.isBroken ? BROKEN : 0;
        while (next >= 0 && next < bytes.length) {
            at = next;
            next = scan.step(scan, bytes, at);
        }
        at = next >= 0 ? next : at;
        if (next === BROKEN || (isLast && scan.step !== epilogue)) {
            scan.isBroken = true;
            scan.model = null;
        }
        scan.base += at;
        return at;
    }

    function go(scan, step, at) {
        scan.step = step;
        return at;
    }

    // The first delimiter has no line break before it, where there is no preamble.
    function first(scan, bytes, at) {
        if (bytes.length - at < scan.delimiter.length) {
            return MORE;
        }
        if (bytes.indexOf(scan.delimiter, at) === at) {
            scan.delimiter = '\r\n' + scan.delimiter;
            return go(scan, afterDelimiter, at + scan.delimiter.length - 2);
        }
        scan.delimiter = '\r\n' + scan.delimiter;
        return go(scan, content, at);
    }

    function afterDelimiter(scan, bytes, at) {
        if (bytes.length - at < 2) {
            return MORE;
        }
        const two = bytes.toString('utf8', at, at + 2);
        if (two === '--') {
            return go(scan, epilogue, bytes.length);
        }
        // The line break stays: it ends the headers where there are none.
        return two === '\r\n' ? go(scan, head, at) : BROKEN;
    }

    function head(scan, bytes, at) {
        const to = bytes.indexOf('\r\n\r\n', at);
        if (to < 0 || to - at > LONGEST_HEAD) {
            return bytes.length - at > LONGEST_HEAD ? BROKEN : MORE;
        }
        scan.isNamed = isModel(bytes.toString('utf8', at, to));
        // The line break stays: it begins the delimiter behind an empty content.
        return go(scan, content, to + 2);
    }

    function isModel(headers) {
        const found = /\r\ncontent-disposition:\s*form-data\s*;([^\r]*)/i.exec(headers);
        if (!found || /;\s*filename\*?=/i.test(';' + found[1])) {
            return false;
        }
        return /;\s*[nN][aA][mM][eE]=(?:"model"|model)\s*(?:;|$)/.test(';' + found[1]);
    }

    function content(scan, bytes, at) {
        const to = bytes.indexOf(scan.delimiter, at);
        if (scan.isNamed) {
            if (to < 0 && bytes.length - at <= 2 * LONGEST_NAME) {
                return MORE;
            }
            scan.model = to < 0 || to - at > LONGEST_NAME ? null : named(bytes, at + 2, to);
            scan.from = scan.base + at + 2;
            scan.to = scan.base + to;
            scan.isNamed = false;
        }
        if (to >= 0) {
            return go(scan, afterDelimiter, to + scan.delimiter.length);
        }
        // What may be the beginning of a delimiter stays.
        const used = bytes.length - scan.delimiter.length + 1;
        return used > at ? used : MORE;
    }

    // Null for an empty field, and for one that is no UTF-8.
    function named(bytes, from, to) {
        const text = from < to ? bytes.toString('utf8', from, to) : '';
        return text && text.indexOf('\ufffd') < 0 ? text : null;
    }

    // Nothing behind the last delimiter counts.
    function epilogue(scan, bytes) {
        return bytes.length;
    }

    return { boundaryOf, scanner };
}

export default { make };
