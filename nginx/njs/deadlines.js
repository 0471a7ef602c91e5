// Ends answers that go on past a deadline of their rule. The client has a part of such an answer, so its connection, or
// its stream of HTTP/2, ends without the mark of a complete one. nginx has a timeout for silence only.

import telling from 'telling.js';

// One for all pieces: njs gives no memory back before its request ends.
const FLUSHED = { flush: true };

// Of this request: each has a machine of its own.
let isTelling = null;

// Each piece of an answer. nginx has one such script for a location, so this one tells the picker as well.
function watch(r, data, flags) {
    if (!flags.last && isOver(r.variables)) {
        throw new Error('the deadline of the rule has passed');
    }
    if (isTelling === null) {
        isTelling = telling.begins(r.variables);
    }
    if (!isTelling) {
        r.sendBuffer(data, flags);
        return;
    }
    r.sendBuffer(data, data.length === 0 || flags.last ? flags : FLUSHED);
    isTelling = telling.look(r, data, flags);
}

// Whether the time of the request, or that of this try, is over. Without a limit there is nothing to compare with.
function isOver(variables) {
    const now = Number(variables.request_time);
    return (
        now >= (Number(variables.infergate_deadline) || Infinity) ||
        now - Number(variables.infergate_try_began) >= (Number(variables.infergate_try_limit) || Infinity)
    );
}

export default { isOver, watch };
