// Separates the prefixes that engines cache: an engine's KV cache serves a prompt only to requests with the same
// `cache_salt`. Otherwise a client could measure, or read in `cached_tokens`, whether another client sent a prompt.

import apiKeys from 'api_keys.js';
import cluster from 'cluster.js';

// The salt of a request, or '' if it shares the cache with all requests without a key. `own`: the `cache_salt` in its
// body, which divides the space of the client further.
//
// With a key it is the key's. Without a key, clients share one space as long as engines do not report `cached_tokens`.
// In /v1/responses engines always do.
function of(r, own) {
    const v = r.variables;
    const space = v.manyeyes_key_salt || (cluster.report_cached_tokens || r.uri === '/v1/responses' ? apiKeys.digest(apiKeys.clientId(r)) : '');
    return space && typeof own === 'string' && own ? apiKeys.digest(space + own) : space;
}

// The body with the salt, for a body that is a JSON object with at least one member. First and last, because parsers
// differ in which of several equal members they use, and the body may have its own.
function insert(buffer, salt) {
    const member = `"cache_salt":"${salt}"`, first = buffer.indexOf(0x7b) + 1, last = buffer.lastIndexOf(0x7d);
    return Buffer.concat([Buffer.from(`{${member},`), buffer.subarray(first, last), Buffer.from(`,${member}}`)]);
}

export default { insert, of };
