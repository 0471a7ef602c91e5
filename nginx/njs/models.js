// Routes a request by the model that it names: in its body, or where an API has it in the path or the query. Only locations
// with a rule that asks for the model come here; what a client says of it in headers is never looked at.

import bases from 'bases.js';
import errors from 'errors.js';
import json from 'json.js';
import members from 'members.js';
import multipart from 'multipart.js';
import window from 'window.js';

const LONGEST_NAME = 4096;
const NO_RULE = '@infergate_error';
const MODELS = '@infergate_models';
const OF_A_MODEL = '/v1/models/';

function route(r) {
    try {
        const named = outsideOf(r);
        if (named !== undefined) {
            choose(r, named, '', false);
            return;
        }
        if (isQuick(r)) {
            return;
        }
        const scan = scannerOf(r);
        window.read(r, scan, (e) => finish(r, scan, e));
    } catch (e) {
        fail(r, e);
    }
}

function scannerOf(r) {
    const forms = multipart.make();
    const boundary = forms.boundaryOf(r.headersIn['Content-Type'] || '');
    return boundary === null ? json.make().scanner() : forms.scanner(boundary);
}

// Goes on where the body is JSON in memory as most programs write it, at a third of the price.
function isQuick(r) {
    const type = r.headersIn['Content-Type'];
    if (type !== undefined && !type.startsWith('application/json')) {
        return false;
    }
    const variables = r.variables;
    const bytes = variables.request_body_file ? undefined : r.requestBuffer;
    const found = bytes ? members.find(bytes) : null;
    if (found === null) {
        return false;
    }
    name(variables, found.model, `json:${found.from}:${found.to}`);
    go(r, variables, found.model, false);
    return true;
}

// The model in the path or the query, whatever stands before; undefined where the API has it in the body.
function outsideOf(r) {
    const path = r.uri;
    const at = path.indexOf(OF_A_MODEL);
    if (at >= 0) {
        return path.slice(at + OF_A_MODEL.length);
    }
    if (path.endsWith('/v1/realtime')) {
        const given = r.args.model;
        return Array.isArray(given) ? given[given.length - 1] : given || '';
    }
    return undefined;
}

function finish(r, scan, e) {
    if (e) {
        fail(r, e);
        return;
    }
    try {
        choose(r, scan.model || '', placeOf(scan), scan.isBroken && isJson(r));
    } catch (failure) {
        fail(r, failure);
    }
}

// A body of another kind need not be one that names a model.
function isJson(r) {
    const type = r.headersIn['Content-Type'];
    return !type || /[\/+]json\s*(?:;|$)|^\s*multipart\/form-data/i.test(type);
}

// Where the body names the model, for rewrites.js; empty where it names none.
function placeOf(scan) {
    return scan.model ? `${scan.isForm ? 'form' : 'json'}:${scan.from}:${scan.to}` : '';
}

// A name that no header can say as it is is none, and meets the rules that a request without a model meets: spaces at its
// ends are lost there, and a path or a query that is no UTF-8 has U+FFFD.
function choose(r, model, place, isBroken) {
    const variables = r.variables;
    if (model && model.length <= LONGEST_NAME && !/^ | $|[\x00-\x1f\x7f\ufffd]/.test(model)) {
        name(variables, model, place);
    }
    go(r, variables, model, isBroken);
}

function name(variables, model, place) {
    variables.infergate_model = model;
    variables.infergate_base_model = bases.of(model);
    variables.infergate_model_at = place;
}

// Goes on to the rule that the map chooses. The map is not asked before: it keeps its first value.
function go(r, variables, model, isBroken) {
    const chosen = variables[variables.infergate_chooser];
    if (chosen === NO_RULE && isBroken) {
        errors.refuseBody(r);
        return;
    }
    r.internalRedirect(chosen === NO_RULE && isForModels(r, model) ? MODELS : chosen);
}

// Whether the answer is which models the pools have: to a question for them, and to a request for another where they say so.
function isForModels(r, model) {
    if (!r.variables.infergate_place_pools) {
        return false;
    }
    return (model && r.variables.infergate_names_models) || (r.method === 'GET' && /\/v1\/models(?:\/.|$)/.test(r.uri));
}

function fail(r, e) {
    r.error(`model not read: ${e.message}`);
    r.return(500);
}

export default { route };
