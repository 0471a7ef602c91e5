// Tells the picker what became of each inference request. Workers put ends into a shared dictionary; one of them sends what
// has come together to the picker in one request. Nothing is lost while the picker is away for less than a minute.

const MOST = 1000;

// Called when a request is logged. The empty answer keeps the log line from being written anywhere.
function note(r) {
    remember(r.variables.request_id, r.variables.infergate_completion);
    return '';
}

// Called with the first piece of an answer, and not again for the others. An answer in one piece ends with it, which the
// note of its end tells.
function firstByte(r, data, flags) {
    if (flags.last) {
        r.sendBuffer(data, flags);
        return;
    }
    if (data.length > 0) {
        const waited = Number(r.variables.request_time) - Number(r.variables.infergate_served_at);
        remember(`${r.variables.request_id}+`, `{"id":"${r.variables.request_id}","waited":${waited.toFixed(3)}}`);
        r.sendBuffer(data, { flush: true });
        r.done();
        return;
    }
    r.sendBuffer(data, flags);
}

function remember(key, value) {
    try {
        ngx.shared.infergate_feed.add(key, value);
    } catch (e) {
        // The dictionary is full: the picker finds a lost end by what the pod reports.
    }
}

async function drain() {
    const feed = ngx.shared.infergate_feed;
    const ends = feed.items(MOST);
    if (ends.length === 0) {
        return;
    }
    try {
        const answer = await ngx.fetch('http://unix:run/picker.sock:/completions', {
            method: 'POST',
            headers: { Host: 'picker' },
            body: ends.map((end) => end[1]).join('\n'),
        });
        if (answer.status === 204) {
            ends.forEach((end) => feed.delete(end[0]));
        }
    } catch (e) {
        // The picker is away: the next turn sends them again.
    }
}

export default { drain, firstByte, note };
