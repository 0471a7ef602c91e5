// Waits before a rule tries again. A request whose time is over is answered 504 instead, by each try that is left and at
// last by the server.

async function wait(r) {
    const deadline = Number(r.variables.infergate_deadline) || Infinity;
    const left = 1000 * (deadline - Number(r.variables.request_time));
    const backoff = Number(r.variables.infergate_backoff);
    const pause = Math.max(0, Math.min(backoff, left));
    if (pause > 0) {
        await new Promise((done) => setTimeout(done, pause));
        r.variables.infergate_try_began = r.variables.request_time;
    }
    if (left <= backoff) {
        r.return(504);
    }
}

export default { wait };
