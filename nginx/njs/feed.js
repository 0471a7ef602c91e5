// Tells the picker what became of each inference request. Workers put ends into a shared dictionary; one of them sends what
// has come together to the picker in one request. Nothing is lost while the picker is away for less than a minute.

const MOST = 1000;

// Called when a request is logged. The empty answer keeps the log line from being written anywhere.
function note(r) {
    try {
        ngx.shared.infergate_feed.add(r.variables.request_id, r.variables.infergate_completion);
    } catch (e) {
        // The dictionary is full: the picker finds this end by what the pod reports.
    }
    return '';
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

export default { note, drain };
