// Reads from an answer how many tokens it took, while it passes. Pieces are sent on before they are looked at, and as they
// are. An answer with an encoding, and one that is no success, is not read.

import feed from 'feed.js';

let made = null;

function read(r, data, flags) {
    made = made || make();
    made.read(r, data, flags);
}

function look(r, data, flags) {
    made = made || make();
    return made.look(r, data, flags);
}

// A machine is made for every request that meets a script, with all that modules define at their top. So this is made for
// those alone that come here.
function make() {
    // Bytes kept of the beginning and of the end of an answer. What model servers write after their usage is shorter.
    const KEPT = 2048;

    // Pieces that are looked at. Each takes 1 KB of memory until the request ends, since njs gives nothing back before; of a
    // longer stream nothing is told.
    const MOST_PIECES = 2000;
    // Bytes that are looked at: they are held as long.
    const MOST_BYTES = 4194304;
    // One for all pieces, for the same reason.
    const FLUSHED = { flush: true };
    // Objects in it hold no others.
    const USAGE = /^"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})/;

    // Of this request: each has a machine of its own. njs copies pieces into the memory of the request, so they stay.
    const head = [];
    const tail = [];
    let headSize = 0;
    let tailSize = 0;
    let pieces = 0;
    let bytes = 0;

    function read(r, data, flags) {
        r.sendBuffer(data, data.length === 0 || flags.last ? flags : FLUSHED);
        if (!look(r, data, flags)) {
            r.done();
        }
    }

    // Looks at a piece that is on its way, and at the usage after the last one. False when it needs to see no more.
    function look(r, data, flags) {
        if (data.length > 0) {
            pieces += 1;
            bytes += data.length;
            if (pieces === 1) {
                if (r.variables.infergate_streams) {
                    feed.begin(r, flags);
                }
                if (r.status >= 300 || r.headersOut['Content-Encoding']) {
                    return false;
                }
            }
            if (pieces > MOST_PIECES || bytes > MOST_BYTES) {
                return false;
            }
            keep(data);
        }
        if (flags.last) {
            tell(r);
        }
        return true;
    }

    function keep(data) {
        const piece = data.length > KEPT ? data.slice(data.length - KEPT) : data;
        if (headSize < KEPT) {
            head.push(data.length > KEPT ? data.slice(0, KEPT) : data);
            headSize += data.length;
        }
        tail.push(piece);
        tailSize += piece.length;
        while (tailSize - tail[0].length >= KEPT) {
            tailSize -= tail.shift().length;
        }
    }

    function tell(r) {
        // Some APIs tell of it before a long list of results.
        const usage = usageIn(tail) || (isWhole(r) ? usageIn(head) : null);
        if (usage === null) {
            return;
        }
        if (usage.prompt_tokens === undefined && usage.input_tokens === undefined) {
            // Anthropic's streams tell of the prompt when they begin, and of the answer when they end.
            const first = usageIn(head) || {};
            usage.input_tokens = first.input_tokens;
            usage.cache_read_input_tokens = first.cache_read_input_tokens;
            usage.cache_creation_input_tokens = first.cache_creation_input_tokens;
        }
        const details = usage.prompt_tokens_details || usage.input_tokens_details || {};
        set(r, 'infergate_prompt_tokens', promptOf(usage));
        set(r, 'infergate_cached_tokens', details.cached_tokens === undefined ? usage.cache_read_input_tokens : details.cached_tokens);
        set(r, 'infergate_completion_tokens', usage.completion_tokens === undefined ? usage.output_tokens : usage.completion_tokens);
    }

    function isWhole(r) {
        return !/event-stream/i.test(r.headersOut['Content-Type'] || '');
    }

    // Where there is only a total, as of rerankers, nothing was generated.
    function promptOf(usage) {
        if (usage.prompt_tokens !== undefined) {
            return usage.prompt_tokens;
        }
        return usage.input_tokens === undefined && usage.output_tokens === undefined ? usage.total_tokens : inputOf(usage);
    }

    // Anthropic's input leaves out what a cache had or got.
    function inputOf(usage) {
        return usage.input_tokens + (usage.cache_read_input_tokens || 0) + (usage.cache_creation_input_tokens || 0);
    }

    function set(r, name, tokens) {
        if (Number.isInteger(tokens) && tokens >= 0 && tokens < 1e9) {
            r.variables[name] = String(tokens);
        }
    }

    // The last usage that is written there, or null. Text of a model cannot look like it: its quotes are escaped.
    function usageIn(kept) {
        const text = kept.length === 1 ? kept[0] : Buffer.concat(kept);
        for (let at = text.lastIndexOf('"usage"'); at >= 0; at = at > 0 ? text.lastIndexOf('"usage"', at - 1) : -1) {
            const found = USAGE.exec(text.slice(at, at + KEPT).toString());
            if (found) {
                try {
                    return JSON.parse(found[1]);
                } catch (e) {
                    return null;
                }
            }
        }
        return null;
    }

    return { look, read };
}

export default { look, read };
