// Answers that nginx makes itself, in the shape of OpenAI's errors.

const ERRORS = {
    400: { message: 'the request body is not valid, and the model in it chooses the route', type: 'invalid_request_error', code: 'invalid_body' },
    404: { message: 'no route matches this request', type: 'invalid_request_error', code: 'route_not_found' },
    413: { message: 'the request body is too large', type: 'invalid_request_error', code: 'request_too_large' },
    429: { message: 'too many requests with large bodies are under way', type: 'rate_limit_error', code: 'too_many_large_requests' },
    502: { message: 'the backend cannot be reached', type: 'server_error', code: 'backend_unavailable' },
    503: { message: 'the endpoint picker cannot be reached', type: 'service_unavailable', code: 'picker_unavailable' },
    504: { message: 'the backend did not answer in time', type: 'timeout_error', code: 'backend_timeout' },
};

function answer(r) {
    refuse(r, statusOf(r.variables));
}

function refuse(r, status) {
    const error = ERRORS[status];
    if (status === 503) {
        r.variables.infergate_mode = 'fail_close';
        r.headersOut['Retry-After'] = '1';
    }
    if (status === 429) {
        r.headersOut['Retry-After'] = '1';
    }
    // There is no body for HEAD, and clients that read what is said to be JSON fail at nothing.
    r.headersOut['Content-Type'] = r.method === 'HEAD' ? 'text/plain' : 'application/json';
    const body = { error: { message: error.message, type: error.type, param: null, code: error.code } };
    r.return(status, JSON.stringify(body) + '\n');
}

// The status of the error that led here. A jump, and an error page that leaves the status to what it leads to, have none:
// then a request without a pool has no rule, and one with a pool has lost its picker, or its endpoint after that.
function statusOf(variables) {
    const given = Number(variables.status);
    if (ERRORS[given]) {
        return given;
    }
    if (!variables.infergate_pool) {
        return 404;
    }
    if (variables.infergate_mode === 'fail_open') {
        return (variables.upstream_status || '').endsWith('504') ? 504 : 502;
    }
    return 503;
}

// The address that was asked last, where the picker was asked in vain before.
function lastUpstream(r) {
    return (r.variables.upstream_addr || '').split(/ : |, /).pop();
}

export default { answer, lastUpstream, refuse };
