// Tells the picker of the first byte of each streamed answer while the request runs. Workers put it into a shared
// dictionary; one of them sends what has come together to the picker in one request. Nothing is lost while the picker is
// away for less than a minute.

const MOST = 1000;

// Called with the first piece of an answer, and not again for the others.
function firstByte(r, data, flags) {
    if (data.length > 0) {
        begin(r, flags);
        if (!flags.last) {
            r.sendBuffer(data, { flush: true });
            r.done();
            return;
        }
    }
    r.sendBuffer(data, flags);
}

// Notes the first byte. An answer in one piece ends with it. An error is over as soon as it begins, and no model has spoken
// in it.
function begin(r, flags) {
    if (r.status < 400) {
        const waited = (Number(r.variables.request_time) - Number(r.variables.infergate_served_at)).toFixed(3);
        r.variables.infergate_waited = waited;
        if (!flags.last) {
            remember(r.variables.request_id, waited);
        }
    }
}

function remember(id, waited) {
    try {
        ngx.shared.infergate_feed.add(id, `{"id":"${id}","waited":${waited}}`);
    } catch (e) {
        // The dictionary is full: the end of the request tells it too.
    }
}

async function drain() {
    const feed = ngx.shared.infergate_feed;
    const waits = feed.items(MOST);
    if (waits.length === 0) {
        return;
    }
    try {
        const answer = await ngx.fetch('http://unix:run/picker.sock:/first-bytes', {
            method: 'POST',
            headers: { Host: 'picker' },
            body: waits.map((wait) => wait[1]).join('\n'),
        });
        if (answer.status === 204) {
            waits.forEach((wait) => feed.delete(wait[0]));
        }
    } catch (e) {
        // The picker is away: the next turn sends them again.
    }
}

export default { begin, drain, firstByte };
