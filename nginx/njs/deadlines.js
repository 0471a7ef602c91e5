// Ends answers that go on past the deadline of their rule. The client has a part of such an answer, so its connection, or
// its stream of HTTP/2, ends without the mark of a complete one. nginx has a timeout for silence only.

function watch(r, data, flags) {
    if (!flags.last && Number(r.variables.request_time) >= Number(r.variables.infergate_deadline)) {
        throw new Error('the deadline of the rule has passed');
    }
    r.sendBuffer(data, flags);
}

export default { watch };
