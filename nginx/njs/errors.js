// Answers that nginx makes itself, in the shape of OpenAI's errors, or of Anthropic's for its API.

function answer(r) {
    make().answer(r);
}

function refuseBody(r) {
    make().refuseBody(r);
}

function refuseLarge(r) {
    make().refuseLarge(r);
}

// The address that was asked last, where the picker was asked in vain before.
function lastUpstream(r) {
    return (r.variables.upstream_addr || '').split(/ : |, /).pop();
}

// A machine is made for every request that meets a script, with all that modules define at their top. So this is made for
// those alone that come here.
function make() {
    const ERRORS = {
        400: { message: 'the request is not valid HTTP', type: 'invalid_request_error', code: 'invalid_request' },
        404: { message: 'no route matches this request', type: 'invalid_request_error', code: 'route_not_found' },
        405: { message: 'the method is not allowed', type: 'invalid_request_error', code: 'method_not_allowed' },
        413: { message: 'the request body is too large', type: 'invalid_request_error', code: 'request_too_large' },
        421: { message: 'this connection was opened for another host', type: 'invalid_request_error', code: 'misdirected_request' },
        429: { message: 'too many requests with large bodies are under way', type: 'rate_limit_error', code: 'too_many_large_requests' },
        414: { message: 'the URL is too long', type: 'invalid_request_error', code: 'url_too_long' },
        431: { message: 'the request headers are too large', type: 'invalid_request_error', code: 'headers_too_large' },
        501: { message: 'this Transfer-Encoding is not supported', type: 'invalid_request_error', code: 'transfer_encoding_not_supported' },
        502: { message: 'the backend cannot be reached', type: 'server_error', code: 'backend_unavailable' },
        503: { message: 'the endpoint picker cannot be reached', type: 'service_unavailable', code: 'picker_unavailable' },
        504: { message: 'the backend did not answer in time', type: 'timeout_error', code: 'backend_timeout' },
        505: { message: 'this version of HTTP is not spoken here', type: 'invalid_request_error', code: 'http_version_not_supported' },
    };

    // What clients of gRPC are told instead of a status. Source: gRPC, http-grpc-status-mapping.md; a body that is too large is
    // RESOURCE_EXHAUSTED, as a message that is.
    const CALL_CODES = { 404: 12, 413: 8, 421: 14, 429: 14, 500: 14, 502: 14, 503: 14, 504: 14 };
    const CALL_TYPE = /^application\/grpc(?:[+;]|$)/;

    const NO_BACKEND = { message: 'there is no backend', type: 'server_error', code: 'no_backend' };

    const INVALID_BODY = {
        message: 'the request body is not valid, and the model in it chooses the route',
        type: 'invalid_request_error',
        code: 'invalid_body',
    };

    // Anthropic's names. Those of other statuses are OpenAI's too, or say that it is the server's fault.
    const ANTHROPIC = {
        404: 'not_found_error',
        413: 'request_too_large',
        501: 'invalid_request_error',
        503: 'overloaded_error',
        504: 'timeout_error',
        505: 'invalid_request_error',
    };

    function answer(r) {
        const status = statusOf(r.variables);
        const error = ERRORS[status] || NO_BACKEND;
        const reason = (r.variables.infergate_call || status === 400) && r.variables.infergate_reason;
        if (CALL_TYPE.test(r.headersIn['Content-Type'] || '')) {
            refuseCall(r, CALL_CODES[status] || 13, reason || error.message);
        } else {
            refuse(r, status, reason ? Object.assign({}, status === 400 ? ERRORS[400] : NO_BACKEND, { message: reason }) : error);
        }
    }

    // An answer of headers alone, which clients of gRPC read as the end of a call.
    function refuseCall(r, code, message) {
        r.headersOut['Content-Type'] = 'application/grpc';
        r.headersOut['grpc-status'] = String(code);
        r.headersOut['grpc-message'] = encodeURIComponent(message);
        r.return(200, '');
    }

    function refuseBody(r) {
        refuse(r, 400, INVALID_BODY);
    }

    function refuseLarge(r) {
        refuse(r, 429, ERRORS[429]);
    }

    function refuse(r, status, error) {
        if (status === 503 && !r.variables.infergate_call) {
            r.variables.infergate_mode = 'fail_close';
            r.headersOut['Retry-After'] = '1';
        }
        if (status === 429) {
            r.headersOut['Retry-After'] = '1';
        }
        // There is no body for HEAD, and clients that read what is said to be JSON fail at nothing.
        r.headersOut['Content-Type'] = r.method === 'HEAD' ? 'text/plain' : 'application/json';
        const body = r.variables.infergate_anthropic ? anthropic(status, error.message) : openai(error);
        r.return(status, JSON.stringify(body) + '\n');
    }

    function openai(error) {
        return { error: { message: error.message, type: error.type, param: null, code: error.code } };
    }

    function anthropic(status, message) {
        const other = status === 429 ? 'rate_limit_error' : status < 500 ? 'invalid_request_error' : 'api_error';
        return { type: 'error', error: { type: ANTHROPIC[status] || other, message: message } };
    }

    // The status of the error that led here. A jump, and an error page that leaves the status to what it leads to, have none:
    // then a request without a pool has no rule, and one with a pool has lost its picker, or its endpoint after that.
    function statusOf(variables) {
        const given = Number(variables.status);
        if (ERRORS[given]) {
            return given;
        }
        if (variables.infergate_call) {
            return (variables.upstream_status || '').endsWith('504') ? 504 : Number(variables.infergate_call);
        }
        if (!variables.infergate_pool) {
            return 404;
        }
        if (variables.infergate_mode === 'fail_open') {
            return (variables.upstream_status || '').endsWith('504') ? 504 : 502;
        }
        return 503;
    }

    return { answer, refuseBody, refuseLarge };
}

export default { answer, lastUpstream, refuseBody, refuseLarge };
