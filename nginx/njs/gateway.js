// What the gateway decides for a request, and what it answers itself. Balancing, retries and fallback are nginx's own.

const STATUS_KEY = 'status';
const ENGINE_KEY = 'engine ';
const STALE_MS = 10_000;

// --- which pool ------------------------------------------------------------------------------------------------

// Access phase: reads `model`, chooses the pool. Refuses what no engine could answer, in OpenAI's form.
async function route(r) {
    if (r.method !== 'POST') {
        return refuse(r, 405, 'invalid_request_error', 'method_not_allowed', `${r.method} is not allowed here; use POST.`);
    }
    let body;
    try {
        body = await r.readRequestJSON();
    } catch (e) {
        return refuse(r, 400, 'invalid_request_error', 'invalid_json', 'The request body is not valid JSON.');
    }
    if (body === null || typeof body !== 'object' || Array.isArray(body)) {
        return refuse(r, 400, 'invalid_request_error', 'invalid_json', 'The request body must be a JSON object.');
    }
    if (typeof body.model !== 'string' || body.model === '') {
        return refuse(r, 400, 'invalid_request_error', 'missing_model', `The request names no model. ${known()}`);
    }
    r.variables.manyeyes_model = body.model;
    const pool = r.variables.manyeyes_pool_of_model;
    if (!pool) {
        return refuse(r, 404, 'invalid_request_error', 'model_not_found', `There is no model '${body.model.slice(0, 128)}'. ${known()}`);
    }
    r.variables.manyeyes_pool = pool;
}

function known() {
    const names = pools().map((pool) => pool.name);
    return names.length ? `There are: ${names.join(', ')}.` : '';
}

// --- what the gateway answers itself ------------------------------------------------------------------------------

// The OpenAI error object; `code` is what a program can act on.
function refuse(r, status, type, code, message) {
    r.headersOut['Content-Type'] = 'application/json';
    if (status === 429 || status === 503) {
        r.headersOut['Retry-After'] = r.variables.manyeyes_retry_after;
    }
    r.return(status, JSON.stringify({ error: { message, type, param: null, code } }) + '\n');
}

const OWN_ERRORS = {
    404: ['invalid_request_error', 'not_found', 'There is nothing at this path. The API is under /v1/: chat/completions, completions, responses, models.'],
    408: ['invalid_request_error', 'request_timeout', 'The request did not arrive in time.'],
    429: ['rate_limit_error', 'overloaded', 'Every engine is busy. Try again after Retry-After seconds.'],
    500: ['server_error', 'internal_error', 'The gateway failed on this request; its log says why.'],
};

// nginx's own errors, which would be HTML.
function error(r) {
    const status = Number(r.variables.status) || 500;
    if (status === 413) {
        const limit = r.variables.manyeyes_max_body_mb;
        return refuse(r, 413, 'invalid_request_error', 'request_too_large',
            `The request is larger than ${limit} MB (gateway.max_body_mb). Send fewer or smaller pictures; base64 makes them a third larger.`);
    }
    if (status === 502 || status === 503 || status === 504) {
        return noEngine(r);
    }
    const [type, code, message] = OWN_ERRORS[status] || ['invalid_request_error', `http_${status}`, 'The request cannot be answered.'];
    refuse(r, status, type, code, message);
}

// No engine of the pool, nor of its fallback, gave an answer.
function noEngine(r) {
    const pool = r.variables.manyeyes_pool;
    const tried = (r.variables.upstream_status || '').split(/[,:]/).map((status) => status.trim());
    if (tried.includes('503')) {
        return refuse(r, 429, 'rate_limit_error', 'overloaded', `Every engine of '${pool}' is busy. Try again after Retry-After seconds.`);
    }
    if (tried.includes('504')) {
        return refuse(r, 504, 'server_error', 'engine_timeout', `The engine of '${pool}' gave no answer in time.`);
    }
    refuse(r, 503, 'server_error', 'no_engine', `No engine of '${pool}' is up. Look at /healthz, or try again after Retry-After seconds.`);
}

// GET /healthz: 200 while at least one pool has an engine up. Made from what the controller last said, so it costs nothing.
function healthz(r) {
    const said = read();
    const up = (said.pools || []).some((pool) => pool.up > 0);
    const age_s = said.at ? Math.round((Date.now() - said.at) / 1000) : null;
    const controller = age_s !== null && age_s * 1000 <= STALE_MS ? 'ok' : 'not answering';
    const body = { status: up ? 'ok' : 'no engine is up', controller, controller_age_s: age_s, pools: said.pools || [] };
    r.headersOut['Content-Type'] = 'application/json';
    r.headersOut['Cache-Control'] = 'no-store';
    r.return(up ? 200 : 503, JSON.stringify(body) + '\n');
}

// GET /v1/models in OpenAI's form: one entry for every name a client may use.
function models(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        return refuse(r, 405, 'invalid_request_error', 'method_not_allowed', `${r.method} is not allowed here; use GET.`);
    }
    const data = [];
    pools().forEach((pool) => pool.names.forEach((name) => data.push({
        id: name, object: 'model', created: 0, owned_by: 'manyeyes', root: pool.model, parent: null, max_model_len: pool.max_model_len,
    })));
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify({ object: 'list', data }) + '\n');
}

// --- what the controller says ----------------------------------------------------------------------------------------

// $manyeyes_engine: the name of the engine that answered last; its address while the name is not known.
function engine(r) {
    const address = (r.variables.upstream_addr || '').split(/, | : /).pop();
    if (!address || !/:\d+$/.test(address)) {
        return '';  // nginx writes the upstream's name where no member was there to ask
    }
    return ngx.shared.cluster.get(ENGINE_KEY + address) || address;
}

// Every second: keeps the controller's status. While it does not answer, the last one stays.
async function refresh(session) {
    let said;
    try {
        const reply = await ngx.fetch(`${session.variables.manyeyes_controller}/status`);
        if (reply.status !== 200) {
            return;
        }
        said = await reply.json();
    } catch (e) {
        return;
    }
    said.at = Date.now();
    said.pools.forEach((pool) => pool.engines.forEach((one) => {
        if (one.address) {
            ngx.shared.cluster.set(ENGINE_KEY + one.address, one.name);
        }
    }));
    ngx.shared.cluster.set(STATUS_KEY, JSON.stringify(said));
}

function read() {
    return JSON.parse(ngx.shared.cluster.get(STATUS_KEY) || '{}');
}

function pools() {
    return read().pools || [];
}

export default { engine, error, healthz, models, noEngine, refresh, route };
