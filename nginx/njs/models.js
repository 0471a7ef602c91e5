// Routes a request by the model that it names: in its body, or where an API has it in the path or the query. Only locations
// with a rule that asks for the model come here; what a client says of it in headers is never looked at.

import bases from 'bases.js';
import errors from 'errors.js';
import json from 'json.js';
import multipart from 'multipart.js';
import window from 'window.js';

// What no header can say.
const UNSPEAKABLE = /[\x00-\x1f\x7f]/;
const LONGEST_NAME = 4096;
const NO_RULE = '@infergate_error';
const MODELS = '@infergate_models';

function route(r) {
    try {
        const named = outsideOf(r);
        if (named !== undefined) {
            choose(r, named, '', false);
            return;
        }
        const scan = scannerOf(r);
        window.read(r, scan, (e) => finish(r, scan, e));
    } catch (e) {
        fail(r, e);
    }
}

function scannerOf(r) {
    const boundary = multipart.boundaryOf(r.headersIn['Content-Type'] || '');
    return boundary === null ? json.scanner() : multipart.scanner(boundary);
}

// The model in the path or the query; undefined where the API has it in the body.
function outsideOf(r) {
    const path = r.uri;
    if (path.startsWith('/v1/models/')) {
        return path.slice('/v1/models/'.length);
    }
    if (path === '/v1/realtime') {
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

// Goes on to the rule that the map chooses. The map is not asked before: it keeps its first value.
function choose(r, model, place, isBroken) {
    const isHeader = model.length <= LONGEST_NAME && !UNSPEAKABLE.test(model);
    r.variables.infergate_model = isHeader ? model : '';
    r.variables.infergate_base_model = isHeader ? bases.of(model) : '';
    r.variables.infergate_model_at = isHeader ? place : '';
    const chosen = r.variables[r.variables.infergate_chooser];
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
