// Handles a request in the gateway: authentication, choice of pool and conversation, and the gateway's own answers.
// nginx balances, retries and proxies; the decisions are in the other modules of this folder.

import fs from 'fs';

import answersInFlight from 'answers_in_flight.js';
import retryPolicy from 'retry_policy.js';
import lostRequests from 'lost_requests.js';
import contentParts from 'content_parts.js';
import autoRouting from 'auto_routing.js';
import cluster from 'cluster.js';
import controller from 'controller_status.js';
import sessionAffinity from 'session_affinity.js';
import apiKeys from 'api_keys.js';
import bodyBudget from 'body_budget.js';
import cacheSalt from 'cache_salt.js';
import mediaUrls from 'media_urls.js';
import bodyScanner from 'body_scanner.js';
import imageSize from 'image_size.js';

// A hash of all bytes of 2 MiB takes about 8 ms, so a larger request is not cached.
const MAX_HASHED_BYTES = 2 * 1024 * 1024;
const SECRETS = '/run/secrets/manyeyes/';

// --- incoming requests ----------------------------------------------------------------------------------------------

// Returns whether the client may continue.
function authorize(r) {
    if (!authorizePort(r)) {
        return false;
    }
    if (apiKeys.isAuthorized(r)) {
        if (!apiKeys.isFromStrangeSite(r)) {
            return true;
        }
        refuse(r, 403, 'invalid_request_error', 'host_not_allowed',
            `Web sites may use this gateway without a key only under a name of its own, not as ${r.variables.host.slice(0, 128)}. Use its IP address or a key, or add the name to webui.host_names in cluster.yaml.`);
        return false;
    }
    r.headersOut['WWW-Authenticate'] = 'Bearer';
    refuse(r, 401, 'invalid_request_error', 'invalid_api_key', 'A valid API key is required. Send it as `Authorization: Bearer KEY`.');
    return false;
}

// Returns whether the client may use this port: the internal port is for the page only.
function authorizePort(r) {
    if (!r.variables.manyeyes_is_page || apiKeys.isFromPage(r)) {
        return true;
    }
    refuse(r, 401, 'invalid_request_error', 'page_key_required', 'This port is for the web page, which sends the key in secrets/page.key. Use the public port.');
    return false;
}

// Runs before the body is read.
function admit(r) {
    if (!authorize(r)) {
        return;
    }
    if (r.method !== 'POST') {
        r.headersOut.Allow = 'POST';
        return refuse(r, 405, 'invalid_request_error', 'method_not_allowed', `${r.method} is not allowed here. Use POST.`);
    }
    if (!r.variables.manyeyes_hops) {
        return refuse(r, 508, 'invalid_request_error', 'request_loop', 'This request passed three gateways. A remote pool leads back to a gateway that sent it; its operator must change the URL of that pool.');
    }
    const exceeded = bodyBudget.admit(r);
    if (exceeded === 'client') {
        refuse(r, 429, 'rate_limit_error', 'upload_limit_exceeded',
            'The requests that this client sends at the same time are too large (gateway.max_client_bodies_mb). Retry after the time in the Retry-After header.');
    } else if (exceeded) {
        refuseUpload(r);
    }
}

function refuseUpload(r) {
    refuse(r, 503, 'server_error', 'uploads_full', 'The gateway has no space for a request of this size. Retry after the time in the Retry-After header.');
}

// The page uses the browser's login dialog and accepts the API key as the password.
function authorizePage(r) {
    if (!apiKeys.isAuthorized(r)) {
        r.headersOut['WWW-Authenticate'] = 'Basic realm="ManyEyes: any name, and your API key as the password", charset="UTF-8"';
        r.headersOut['Content-Type'] = 'text/plain';
        r.return(401, 'This page requires an API key as the password.\n');
    }
}

// Reads the body, chooses pool and conversation, and redirects the request to the pool's location.
// Refuses requests that no engine could answer.
function route(r) {
    r.variables.manyeyes_body_read = '1';
    if (lostRequests.hasLength(apiKeys.clientId(r), r.headersIn['Content-Length'], ngx.shared.lost_requests)) {
        return routeSuspect(r);
    }
    // All three variants return the whole body. The first two need no promise; the last copies a large body once less.
    const length = Number(r.headersIn['Content-Length']);
    if (length <= bodyScanner.MAX_SHORT_BODY_BYTES) {
        return routeBody(r, bodyScanner.readShort, r.requestText);
    }
    return length < 65_536 ? routeBody(r, bodyScanner.read, r.requestBuffer.buffer) : routeLarge(r);
}

async function routeLarge(r) {
    const body = await r.readRequestArrayBuffer();
    bodyBudget.correct(r, body.byteLength);
    routeBody(r, bodyScanner.read, body);
}

// For a request that is as long as one that ended an engine.
async function routeSuspect(r) {
    const body = await r.readRequestArrayBuffer();
    bodyBudget.correct(r, body.byteLength);
    const digest = await lostRequests.digest(body);
    const record = lostRequests.judge(apiKeys.clientId(r), digest, ngx.shared.lost_requests);
    if (record.losses) {
        r.variables.manyeyes_lost_digest = digest;
    }
    routeBody(r, bodyScanner.read, body, record);
}

function routeBody(r, read, body, record) {
    const v = r.variables;
    let facts;
    try {
        facts = read(body, (model) => model === 'auto' || poolOf(r, model));
    } catch (e) {
        if (!(e instanceof bodyScanner.Refusal)) {
            throw e;
        }
        return refuse(r, 400, 'invalid_request_error', e.code, e.message, e.place);
    }
    if (!facts.model) {
        return refuse(r, 400, 'invalid_request_error', 'missing_model', `The request has no \`model\`. ${availableModels()}`);
    }
    v.manyeyes_model = facts.model.slice(0, bodyScanner.MAX_MODEL_BYTES);
    if (facts.stream) {
        v.manyeyes_stream = '1';
    }
    const pool = chosenPool(r, facts);
    if (!pool) {
        return refuse(r, 404, 'invalid_request_error', 'model_not_found', `The model '${facts.model.slice(0, 128)}' does not exist. ${availableModels()}`);
    }
    const here = cluster.pools[pool];
    const link = facts.links.length ? mediaUrls.refused(facts.links, here.domains) : undefined;
    if (link !== undefined) {
        return refuse(r, 400, 'invalid_request_error', 'media_url_not_allowed',
            `Images and videos must be data: URLs${here.domains.length ? ` or URLs of ${here.domains.join(', ')}` : ''}, got '${link.slice(0, 128)}'.`);
    }
    const tooLarge = imageSize.excess(facts.sizes, here);
    if (tooLarge) {
        return refuse(r, 400, 'invalid_request_error', 'image_too_large', tooLarge.message, tooLarge.place);
    }
    const tooMany = answersInFlight.refusal(facts, here.limits, Number(v.manyeyes_in_flight_limit));
    if (tooMany) {
        return refuse(r, 400, 'invalid_request_error', 'too_many_answers', tooMany, facts.answers > 1 ? 'n' : 'prompt');
    }
    if (!answersInFlight.admit(r, facts.prompts * facts.answers)) {
        return error(r, 429);
    }
    const explicit = r.headersIn['X-Conversation-Id'] || facts.cacheKey;
    const conversation = sessionAffinity.identify(facts, apiKeys.clientId(r), explicit, ngx.shared.conversations);
    v.manyeyes_conversation = conversation.id;
    if (conversation.known) {
        v.manyeyes_known_conversation = conversation.known;
    }
    if (cluster.hash_pictures) {
        v.manyeyes_picture = sessionAffinity.imageId(facts);
    }
    v.manyeyes_asked_pool = v.manyeyes_pool = v.manyeyes_pools = pool;
    if (record && record.isRefused) {
        return refuse(r, 422, 'invalid_request_error', 'request_ended_engines',
            `The request is refused until ${new Date(record.untilMs).toISOString().slice(11, 19)} UTC: engines of '${pool}' ended while they processed it. Send fewer or smaller images and videos, or less text.`);
    }
    const salt = cacheSalt.of(r, facts.cacheSalt);
    if (salt) {
        v.manyeyes_cache_salt = salt;
        if (!facts.marked && facts.cacheSalt === undefined && !v.request_body_file) {
            v.manyeyes_inserted_salt = salt;
        }
    }
    if (facts.marked) {
        v.manyeyes_marked = '1';
    }
    if (salt || facts.marked) {
        v.manyeyes_way = '@rewritten-';
    }
    const variant = v.manyeyes_lost_digest ? '.once' : here.cache ? cached(r, here, facts, body) : '';
    r.internalRedirect((salt || facts.marked ? '@rewritten-' : '@pool-') + pool + variant);
}

// nginx's map ignores case; engines do not. The files of an older controller have no `names`.
function poolOf(r, model) {
    r.variables.manyeyes_model = model;
    const pool = r.variables.manyeyes_pool_of_model, names = pool && cluster.pools[pool].names;
    return !names || names.includes(model) ? pool : '';
}

function chosenPool(r, facts) {
    if (facts.model !== 'auto') {
        return poolOf(r, facts.model);
    }
    const budget = Number(r.headersIn['X-Latency-Budget-Ms']) || 0;
    const choice = autoRouting.choose(cluster.auto, facts, budget, controller.p95Ms);
    if (choice) {
        r.variables.manyeyes_route = choice.reason;
    }
    return choice && choice.pool;
}

// '.cached' if the answer to this request may be in the pool's cache.
function cached(r, pool, facts, body) {
    if (facts.stream || facts.temperature !== 0 || (body.byteLength || 0) > MAX_HASHED_BYTES || /no-cache|no-store/i.test(r.headersIn['Cache-Control'] || '')) {
        r.variables.manyeyes_cache_bypass = 'BYPASS';
        return '';
    }
    r.variables.manyeyes_cache_key = `${pool.cache.shared ? '' : apiKeys.clientId(r)}\0${r.uri}\0${sessionAffinity.whole(typeof body === 'string' ? r.requestBuffer.buffer : body)}`;
    return '.cached';
}

function availableModels() {
    const names = controller.pools().map((pool) => pool.name);
    return names.length ? `Available models: ${names.join(', ')}.` : '';
}

// --- retries and fallbacks ------------------------------------------------------------------------------------------

// $manyeyes_next_location: the next location of a request that its pool could not answer.
function next(r) {
    const v = r.variables;
    const inTime = Number(v.request_time) < Number(v.manyeyes_total_timeout_s);
    const hop = inTime ? retryPolicy.next(readAttempts(v), v.manyeyes_pools.split(','), (name) => cluster.pools[name].next, v.manyeyes_lost_digest) : null;
    if (!hop) {
        return '@no_engine';
    }
    v.manyeyes_pool = hop.pool;
    v.manyeyes_pools = `${v.manyeyes_pools},${hop.pool}`;
    v.manyeyes_fallback_from = hop.pool === v.manyeyes_asked_pool ? '' : v.manyeyes_asked_pool;
    v.manyeyes_cache_bypass = cluster.pools[v.manyeyes_asked_pool].cache ? 'BYPASS' : '';
    return `${v.manyeyes_way}${hop.pool}${hop.variant && '.'}${hop.variant}`;
}

function readAttempts(v) {
    return retryPolicy.read(v.upstream_addr, v.upstream_status, v.upstream_connect_time, v.upstream_header_time);
}

// No pool of the fallback chain answered.
async function noEngine(r) {
    const v = r.variables, attempts = readAttempts(v);
    const pool = v.manyeyes_asked_pool;
    let outcome = retryPolicy.outcome(attempts, v.manyeyes_pools.split(',').some((name) => !cluster.pools[name].host && controller.up(name) > 0), v.manyeyes_lost_digest);
    const ended = retryPolicy.ended(attempts);
    if (ended.length) {
        await rememberLosses(r, ended);
    }
    if (outcome === 'failed' && !await isSomeSound(attempts)) {
        outcome = 'lost';
    }
    switch (outcome) {
    case 'busy':
        return refuse(r, 429, 'rate_limit_error', 'overloaded', `Every engine of '${pool}' is busy. Retry after the time in the Retry-After header.`);
    case 'late':
        return refuse(r, 504, 'server_error', 'engine_timeout', `The engine of '${pool}' did not answer in time.`);
    case 'failed':
        return refuse(r, 422, 'invalid_request_error', 'engine_cannot_process',
            `The request cannot be processed: two attempts at '${pool}' ended with an internal error, and its engines are healthy. ${await whatToCheck(r)}`);
    case 'unsupported':
        return refuse(r, 422, 'invalid_request_error', 'engine_cannot_process',
            `The request cannot be processed: the engine of '${pool}' does not support something in it. ${await whatToCheck(r)}`);
    case 'lost':
        return refuse(r, 502, 'server_error', 'engine_lost',
            `Engines of '${pool}' failed while they processed this request, so it is not retried. Send a smaller request.`);
    default:
        return refuse(r, 503, 'server_error', 'no_engine', `No engine of '${pool}' is up. See /healthz, or retry after the time in the Retry-After header.`);
    }
}

async function whatToCheck(r) {
    let parts = '';
    try {
        parts = contentParts.describe(await r.readRequestArrayBuffer());
    } catch (e) {
        r.error(`cannot describe a request that engines cannot process: ${e}`);
    }
    return parts ? `Check ${parts}: each image and video must be a complete file of its type in a base64 data: URL, and each part may have only the fields of its type.` : 'Check the values of its parameters.';
}

async function rememberLosses(r, addresses) {
    try {
        const digest = r.variables.manyeyes_lost_digest || await lostRequests.digest(await r.readRequestArrayBuffer());
        const client = apiKeys.clientId(r), length = r.headersIn['Content-Length'];
        const wasAnswered = lostRequests.hasLength(client, length, ngx.shared.answered_lengths);
        lostRequests.record(client, length, digest, addresses, ngx.shared.lost_requests, Date.now(), wasAnswered);
    } catch (e) {
        r.error(`cannot remember a request that ended engines: ${e}`);
    }
}

// $manyeyes_answers: how many answers the request counted. A field of the log line, so it is evaluated once, at the end.
function settle(r) {
    if (r.status === 200 && r.variables.manyeyes_asked_pool) {
        lostRequests.noteAnswer(apiKeys.clientId(r), r.headersIn['Content-Length'], ngx.shared.answered_lengths);
    }
    return answersInFlight.settle(r);
}

// A request in `.once` was answered: it does not end engines.
function answered(r) {
    if (r.variables.manyeyes_lost_digest) {
        lostRequests.clear(apiKeys.clientId(r), r.variables.manyeyes_lost_digest, ngx.shared.lost_requests);
    }
}

// Whether an engine that answered 500 is healthy, so that the request is at fault. A busy engine does not answer /health
// in time. An engine that shuts down answers 500 too, but not /health with 200. An engine that cannot process images
// fails the controller's canary request, and is suspect.
async function isSomeSound(attempts) {
    const failed = new Set(attempts.filter((attempt) => attempt.status === 500).map((attempt) => attempt.address));
    const sound = await Promise.all(Array.from(failed, async (address) => {
        try {
            return ['', 'up', 'draining'].includes(controller.state(address)) && (await ngx.fetch(`http://${address}/health`)).status === 200;
        } catch (e) {
            return /timed out/.test(e.message);
        }
    }));
    return sound.includes(true);
}

// --- remote pools ---------------------------------------------------------------------------------------------------

// $manyeyes_remote_authorization: the key of the pool's endpoint, read from its secret file.
function remoteAuthorization(r) {
    const file = cluster.pools[r.variables.manyeyes_pool].key_file;
    if (!file) {
        return '';
    }
    try {
        return `Bearer ${fs.readFileSync(SECRETS + file, 'utf8').trim()}`;
    } catch (e) {
        r.error(`cannot read the key of pool ${r.variables.manyeyes_pool} from ${SECRETS}${file}`);
        return '';
    }
}

// $manyeyes_remote_body: the request with the endpoint's name of the model.
function remoteBody(r) {
    return bodyScanner.rewritten(r.requestBuffer.buffer, cluster.pools[r.variables.manyeyes_pool].model);
}

// $manyeyes_renamed_body: the request with a model name that the pool's engines accept: they started before the pool
// was renamed.
function renamedBody(r) {
    return salted(r, bodyScanner.rewritten(r.requestBuffer.buffer, cluster.pools[r.variables.manyeyes_pool].asked));
}

// $manyeyes_rewritten_body: the request without the `uuid` of its media, with the client's salt.
function rewrittenBody(r) {
    const body = r.requestBuffer;
    return salted(r, r.variables.manyeyes_marked ? bodyScanner.rewritten(body.buffer) : body);
}

function salted(r, buffer) {
    const salt = r.variables.manyeyes_cache_salt;
    return salt ? cacheSalt.insert(buffer, salt) : buffer;
}

function remoteRefusesKey(r) {
    refuse(r, 502, 'server_error', 'remote_key_refused', `The endpoint of pool '${r.variables.manyeyes_pool}' rejected the gateway's key (${r.variables.upstream_status}). The operator must replace it.`);
}

// --- cached answers -------------------------------------------------------------------------------------------------

// nginx stores an answer before its content is checked. An incomplete answer (vLLM sends "abort" with status 200 while
// it shuts down) is marked here and not used; the next complete answer replaces it and removes the mark.
function checkCompleteness(r, data, flags) {
    const v = r.variables, doubts = ngx.shared.doubts;
    const tail = v.manyeyes_last_bytes + data;  // a buffer may end inside the pattern
    v.manyeyes_last_bytes = tail.slice(-64);
    if (/"finish_reason":\s*"(abort|error)"/.test(tail)) {
        v.manyeyes_cut_short = '1';
        doubts.set(v.manyeyes_cache_key, '1');
    } else if (flags.last && !v.manyeyes_cut_short) {
        doubts.delete(v.manyeyes_cache_key);
    }
    r.sendBuffer(data, flags);
}

// $manyeyes_cache_doubt: not empty if the stored answer must not be used.
function doubt(r) {
    return ngx.shared.doubts.get(r.variables.manyeyes_cache_key) || '';
}

// --- answers of the gateway itself ----------------------------------------------------------------------------------

// Sends OpenAI's error object. `code` is for programs; `param`: the part of the request that is wrong.
function refuse(r, status, type, code, message, param) {
    r.headersOut['Content-Type'] = 'application/json';
    r.variables.manyeyes_code = code;
    if (status === 429 || status === 503) {
        r.headersOut['Retry-After'] = r.variables.manyeyes_retry_after;
    }
    r.return(status, JSON.stringify({ error: { message, type, param: param || null, code } }) + '\n');
}

const OWN_ERRORS = {
    404: ['not_found', 'Unknown path. The API is under /v1/: chat/completions, completions, responses, models.'],
    405: ['method_not_allowed', 'This method is not allowed here.'],
    414: ['uri_too_long', 'The URI is too long.'],
    505: ['version_not_supported', 'Send the request as HTTP/1.0, HTTP/1.1 or HTTP/2.'],
};

// Replaces nginx's HTML error pages.
function error(r, known) {
    const status = known || Number(r.variables.status) || 500;
    switch (status) {
    case 413:
        return refuse(r, 413, 'invalid_request_error', 'request_too_large',
            `The request is larger than ${r.variables.manyeyes_max_body_mb} MB (gateway.max_body_mb). Send fewer or smaller images; base64 makes them a third larger.`);
    case 429:
        return refuse(r, 429, 'rate_limit_error', 'rate_limit_exceeded',
            `${r.variables.manyeyes_key ? `The key '${r.variables.manyeyes_key}'` : 'This client'} exceeds its limit of requests per minute or of concurrent answers (n x prompts). Retry after the time in the Retry-After header.`);
    case 500:
        if (r.variables.manyeyes_body_bytes && !r.variables.manyeyes_body_read) {  // nginx could not write it to /tmp
            return refuseUpload(r);
        }
        return refuse(r, 500, 'server_error', 'internal_error', 'The gateway failed on this request. Its log has the reason.');
    case 502: case 503: case 504:
        return noEngine(r);
    }
    const [code, message] = OWN_ERRORS[status] || [`http_${status}`, 'The request is malformed.'];
    refuse(r, status, 'invalid_request_error', code, message);
}

// nginx has internal codes for these two errors; the status that it sends is 400.
function headersTooLarge(r) {
    refuse(r, 400, 'invalid_request_error', 'headers_too_large', 'The request headers are too many or too large.');
}

function httpsExpected(r) {
    refuse(r, 400, 'invalid_request_error', 'https_expected', 'This address serves HTTPS. Use a URL that begins with https://.');
}

// GET /healthz: 200 while at least one pool has an engine up. It uses the controller's last status, so it is cheap.
function healthz(r) {
    const { pools, ageS, isFresh } = controller.status();
    const up = pools.some((pool) => pool.up > 0);
    const body = { status: up ? 'ok' : 'no engine is up', controller: isFresh ? 'ok' : 'not answering', controller_age_s: ageS, pools };
    r.headersOut['Content-Type'] = 'application/json';
    r.headersOut['Cache-Control'] = 'no-store';
    r.return(up ? 200 : 503, JSON.stringify(body) + '\n');
}

// GET /v1/models and /v1/models/NAME in OpenAI's format: one entry for every name that a client may use.
function models(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        r.headersOut.Allow = 'GET, HEAD';
        return refuse(r, 405, 'invalid_request_error', 'method_not_allowed', `${r.method} is not allowed here. Use GET.`);
    }
    const data = [];
    const entry = (id, root, length) => ({ id, object: 'model', created: 0, owned_by: 'manyeyes', root, parent: null, max_model_len: length });
    controller.pools().forEach((pool) => pool.names.forEach((name) => data.push(entry(name, pool.model, pool.max_model_len))));
    if (data.length && cluster.auto.length) {
        data.push(entry('auto', 'auto', null));
    }
    const requestedName = r.uri.slice('/v1/models/'.length).replace(/\/$/, '');
    const requested = requestedName && data.find((model) => model.id === requestedName);
    if (requestedName && !requested) {
        return refuse(r, 404, 'invalid_request_error', 'model_not_found', `The model '${requestedName.slice(0, 128)}' does not exist. ${availableModels()}`);
    }
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify(requested || { object: 'list', data }) + '\n');
}

// $manyeyes_engine: the name of the engine that answered last, or its address if the name is unknown.
function engine(r) {
    const v = r.variables, address = v.upstream_addr;
    if (!address) {
        return '';
    }
    const last = address.slice(address.lastIndexOf(' ') + 1), name = controller.engine(last);
    if (name) {
        return name;
    }
    const pool = cluster.pools[v.manyeyes_pool];
    // nginx writes the upstream's name if the upstream had no member.
    return !/:\d+$/.test(last) ? '' : pool && pool.host ? pool.host : last;
}

export default {
    admit, answered, authorize, authorizePage, authorizePort, doubt, engine, error, headersTooLarge, healthz, httpsExpected, checkCompleteness, keyHash: apiKeys.hash, models, next, noEngine, refresh: controller.refresh,
    releaseBody: bodyBudget.release, remoteAuthorization, remoteBody, remoteRefusesKey, renamedBody, rewrittenBody, route, settle,
};
