// Lets tests give many answers to the restorer in one request: a JSON list of [answer in base64, ends of its pieces, whether
// it is a stream, the JSON text of the name]. Answers with a list of [restored answer in base64, bytes held after each piece].

import restore from 'restore.js';

function run(r) {
    r.return(200, JSON.stringify(JSON.parse(r.requestText).map((item) => one(Buffer.from(item[0], 'base64'), item[1], item[2], item[3]))));
}

function one(answer, ends, isStream, name) {
    const restorer = restore.make().restorer(isStream, Buffer.from(name));
    const out = [];
    const sizes = [];
    let at = 0;
    ends.forEach((end, index) => {
        const piece = restorer.take(answer.subarray(at, end), index === ends.length - 1);
        out.push(Buffer.from(piece));
        sizes.push(piece.length);
        at = end;
    });
    return [Buffer.concat(out).toString('base64'), sizes];
}

export default { run };
