// Lets tests give many bodies to the readers of models in one request: a JSON list of [body in base64, bytes in a piece,
// boundary of a form or null]. Answers with a list of [model or null, whether the body is broken,
// where the bytes begin that name it, where they end]. At `/members` it is a list of bodies in base64, and the answer a list
// of null or [model, where its bytes begin, where they end].

import json from 'json.js';
import members from 'members.js';
import multipart from 'multipart.js';

function scan(r) {
    r.return(200, JSON.stringify(JSON.parse(r.requestText).map((item) => one(Buffer.from(item[0], 'base64'), item[1], item[2]))));
}

function one(body, piece, boundary) {
    const scan = boundary === null ? json.make().scanner() : multipart.make().scanner(boundary);
    let used = 0;
    let end = 0;
    while (end < body.length && !scan.isOver()) {
        end = Math.min(end + piece, body.length);
        used += scan.take(body.subarray(used, end), end === body.length);
    }
    return [scan.model, scan.isBroken, scan.model === null ? 0 : scan.from, scan.model === null ? 0 : scan.to];
}

function find(r) {
    const found = JSON.parse(r.requestText).map((item) => members.find(Buffer.from(item, 'base64')));
    r.return(200, JSON.stringify(found.map((one) => (one === null ? null : [one.model, one.from, one.to]))));
}

export default { find, scan };
