// What the picker is told of an answer that passes a script with another task: its first byte, and its tokens.

import feed from 'feed.js';
import usage from 'usage.js';

// Of this request: each has a machine of its own.
let isUsageRead = false;
let isFirstByteTold = false;

// Whether there is something to tell of this answer.
function begins(variables) {
    isUsageRead = Boolean(variables.infergate_usage);
    isFirstByteTold = isUsageRead || !variables.infergate_streams;
    return isUsageRead || !isFirstByteTold;
}

// Looks at a piece that is on its way. False when it needs to see no more.
function look(r, data, flags) {
    if (isUsageRead) {
        isUsageRead = usage.look(r, data, flags);
    } else if (!isFirstByteTold && data.length > 0) {
        isFirstByteTold = true;
        feed.begin(r, flags);
    }
    return isUsageRead || !isFirstByteTold;
}

export default { begins, look };
