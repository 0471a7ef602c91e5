// Ends answers that go on past a deadline of their rule. The client has a part of such an answer, so its connection, or
// its stream of HTTP/2, ends without the mark of a complete one. nginx has a timeout for silence only.

function watch(r, data, flags) {
    if (!flags.last && isOver(r.variables)) {
        throw new Error('the deadline of the rule has passed');
    }
    r.sendBuffer(data, flags);
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
