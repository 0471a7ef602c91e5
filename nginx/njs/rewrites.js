// Gives a request another model than the one that it names, and its answer the name that the client knows. Only requests
// come here for which the picker chose a model, in $infergate_target; models.js has left in $infergate_model_at where the
// body names one.

import fs from 'fs';
import deadlines from 'deadlines.js';
import errors from 'errors.js';
import restore from 'restore.js';
import telling from 'telling.js';

const PIECE = 1048576;
// Bytes of a file that are read before other requests get their turn.

// One for all pieces: njs gives no memory back before its request ends.
const FLUSHED = { flush: true };

// Of this request: each has a machine of its own.
let body = null;
let answer = null;

// Makes the parts of the body ready. One in a file has to be in memory, twice with the copy that nginx sends, so the sum of
// those is bounded; one alone may always be. A try that follows finds the parts that nginx keeps of the first.
function prepare(r) {
    const variables = r.variables;
    if (variables.infergate_is_rewritten) {
        return undefined;
    }
    try {
        const path = variables.request_body_file;
        if (!path) {
            body = r.requestBuffer;
            variables.infergate_is_rewritten = '1';
            return undefined;
        }
        const size = fs.statSync(path).size;
        if (!isGranted(variables, 2 * size)) {
            errors.refuseLarge(r);
            return undefined;
        }
        return read(path, size).then(
            (bytes) => {
                body = bytes;
                variables.infergate_is_rewritten = '1';
            },
            (e) => fail(r, e),
        );
    } catch (e) {
        fail(r, e);
        return undefined;
    }
}

function fail(r, e) {
    r.error(`body not rewritten: ${e.message}`);
    r.return(500);
}

// Whether there is room for so many bytes. What is granted is given back by `release`; what a worker that died left behind,
// by the timeout of the dictionary.
function isGranted(variables, bytes) {
    const granted = ngx.shared.infergate_rewritten;
    const before = granted.items().reduce((sum, item) => sum + item[1], 0);
    if (before > 0 && before + bytes > Number(variables.infergate_rewritten_budget)) {
        return false;
    }
    granted.set(variables.request_id, bytes);
    variables.infergate_is_granted = '1';
    return true;
}

// Asked when the request is logged.
function release(r) {
    ngx.shared.infergate_rewritten.delete(r.variables.request_id);
    return '';
}

function read(path, size) {
    const file = fs.openSync(path, 'r');
    const bytes = Buffer.alloc(size);
    return new Promise((done, failed) => {
        function turn(at) {
            try {
                const count = at < size ? fs.readSync(file, bytes, at, Math.min(PIECE, size - at), at) : 0;
                if (count > 0) {
                    setTimeout(turn, 0, at + count);
                    return;
                }
                fs.closeSync(file);
                done(bytes);
            } catch (e) {
                failed(e);
            }
        }
        turn(0);
    });
}

// The parts of the body that is sent: what is before the name, the name, and what is behind it. nginx asks for each twice,
// and keeps the first answer.
function before(r) {
    return body.subarray(0, placeOf(r).from);
}

function model(r) {
    const name = r.variables.infergate_target;
    return placeOf(r).isForm ? name : JSON.stringify(name);
}

function after(r) {
    return body.subarray(placeOf(r).to);
}

function placeOf(r) {
    const at = r.variables.infergate_model_at.split(':');
    return { isForm: at[0] === 'form', from: Number(at[1]), to: Number(at[2]) };
}

// The headers of an answer: one whose body is changed has another length.
function head(r) {
    const type = String(r.headersOut['Content-Type'] || '');
    const isStream = /^\s*text\/event-stream\s*(?:;|$)/i.test(type);
    if (r.method === 'HEAD' || r.headersOut['Content-Encoding'] || !(isStream || /^\s*application\/json\s*(?:;|$)/i.test(type))) {
        return;
    }
    delete r.headersOut['Content-Length'];
    r.variables.infergate_restored = isStream ? 'stream' : 'json';
}

// Each piece of an answer.
function pass(r, data, flags) {
    if (answer === null) {
        answer = begin(r.variables);
    }
    if (answer.isBounded && !flags.last && deadlines.isOver(r.variables)) {
        throw new Error('the deadline of the rule has passed');
    }
    if (answer.isTelling) {
        answer.isTelling = telling.look(r, data, flags);
    }
    if (answer.restorer === null) {
        r.sendBuffer(data, flags);
        return;
    }
    if (data.length === 0 && !flags.last) {
        r.sendBuffer(data, flags);
        return;
    }
    const sent = answer.restorer.take(data, flags.last);
    if (sent.length > 0 || flags.last) {
        r.sendBuffer(sent, flags.last ? flags : FLUSHED);
    }
}

function begin(variables) {
    const restored = variables.infergate_restored;
    return {
        isTelling: telling.begins(variables),
        isBounded: Boolean(variables.infergate_deadline || variables.infergate_try_limit),
        restorer: restored
            ? restore.make().restorer(restored === 'stream', Buffer.from(JSON.stringify(variables.infergate_model)))
            : null,
    };
}

export default { after, before, head, model, pass, prepare, release };
