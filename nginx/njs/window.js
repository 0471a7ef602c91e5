// The body of a request, piece by piece. In memory it is one piece. nginx keeps larger ones in a file, which is read into one
// small buffer again and again: a script gives no memory back before its request ends.

import fs from 'fs';

const PIECE = 65536;
const PIECES_IN_A_TURN = 8;
// A file is read in turns, so that other requests get theirs.

// Hands the body to `scan.take(bytes, isLast)`, which returns how many bytes it is done with; those it is not are the first of the
// next piece. Calls `done` at the end, or once `scan.isOver`.
function read(r, scan, done) {
    const path = r.variables.request_body_file;
    if (path) {
        turn({ file: fs.openSync(path, 'r'), buffer: Buffer.alloc(PIECE), kept: 0, scan, done });
        return;
    }
    const bytes = r.requestBuffer;
    if (bytes && bytes.length > 0) {
        scan.take(bytes, true);
    }
    done();
}

function turn(state) {
    try {
        for (let count = 0; count < PIECES_IN_A_TURN; count++) {
            if (isEnd(state)) {
                fs.closeSync(state.file);
                state.done();
                return;
            }
        }
    } catch (e) {
        state.done(e);
        return;
    }
    setTimeout(turn, 0, state);
}

// Reads one piece. True when there is nothing more to read, or nobody who wants it.
function isEnd(state) {
    const buffer = state.buffer;
    const count = fs.readSync(state.file, buffer, state.kept, PIECE - state.kept, null);
    const filled = state.kept + count;
    const bytes = buffer.subarray(0, filled);
    const used = state.scan.take(bytes, count === 0);
    state.kept = filled - used;
    if (used > 0 && state.kept > 0) {
        bytes.copy(buffer, 0, used, filled);
    }
    return count === 0 || state.scan.isOver();
}

export default { read };
