// Base models of what pods serve. The picker knows them; one worker asks it now and then, and keeps the answer in a shared
// dictionary where requests look them up. What ConfigMaps say goes before.

const MOST = 5000;
// Names that can be there.
const ETAG = '\n';
// Under which the answer's own name stands: no header can say it, so no request asks for it.

async function refresh() {
    const bases = ngx.shared.infergate_bases;
    try {
        const answer = await ngx.fetch('http://unix:run/picker.sock:/base-models', {
            headers: { Host: 'picker', 'If-None-Match': bases.get(ETAG) || '' },
        });
        if (answer.status === 200) {
            keep(bases, await answer.json(), answer.headers.get('etag'));
        }
    } catch (e) {
        // The picker is away, or the dictionary full: what there is stays, and the next turn asks again.
    }
}

function keep(bases, found, etag) {
    bases.delete(ETAG);
    bases.keys(MOST).forEach((name) => {
        if (!Object.prototype.hasOwnProperty.call(found, name)) {
            bases.delete(name);
        }
    });
    Object.keys(found).forEach((name) => bases.set(name, found[name]));
    bases.set(ETAG, etag);
}

// Empty where nobody says which it is. What is preloaded has no prototype, so no name that is not its own.
function of(model) {
    const said = base_models[model];
    if (said !== undefined) {
        return said;
    }
    return (model && ngx.shared.infergate_bases.get(model)) || '';
}

export default { of, refresh };
