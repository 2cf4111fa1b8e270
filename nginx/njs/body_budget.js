// Limits the bytes of request bodies that the gateway holds at the same time, of one client and of all. A body is counted
// before it is read, by its Content-Length, until the request ends: it is in memory or in /tmp for as long.

import apiKeys from 'api_keys.js';
import cluster from 'cluster.js';

// Smaller bodies do not count: the number of requests limits them.
const MIN_BYTES = 65_536;
const ALL = 'all';

// Counts the body of a request that begins. Returns the exceeded limit, 'client' or 'all', or ''. A body without
// Content-Length counts as the largest possible body until it was read. A single body always passes.
function admit(r) {
    const length = r.headersIn['Content-Length'];
    const bytes = length === undefined ? cluster.max_body_bytes : Number(length);
    if (bytes <= MIN_BYTES) {
        return '';
    }
    const client = apiKeys.clientId(r), mine = add(client, bytes), all = add(ALL, bytes);
    // A client gets at most half of what others leave. Otherwise two clients could occupy everything.
    const half = (cluster.max_all_body_bytes - (all - mine)) / 2;
    const exceeded = mine > Math.max(bytes, Math.min(cluster.max_client_body_bytes, half)) ? 'client'
        : all > Math.max(bytes, cluster.max_all_body_bytes) ? 'all' : '';
    if (exceeded) {
        add(client, -bytes);
        add(ALL, -bytes);
        return exceeded;
    }
    r.variables.manyeyes_body_bytes = String(bytes);
    return '';
}

// Counts a body that was read by its length.
function correct(r, length) {
    const counted = Number(r.variables.manyeyes_body_bytes);
    if (counted && counted !== length) {
        add(apiKeys.clientId(r), length - counted);
        add(ALL, length - counted);
        r.variables.manyeyes_body_bytes = String(length);
    }
}

// $manyeyes_released_body: empty. Evaluated when the request ends.
function release(r) {
    const bytes = Number(r.variables.manyeyes_body_bytes);
    add(apiKeys.clientId(r), -bytes);
    add(ALL, -bytes);
    return '';
}

// The new number. A worker that crashed leaves its requests counted until the number expires, so it may become negative.
function add(name, bytes) {
    const bodies = ngx.shared.bodies, sum = bodies.incr(name, bytes, 0);
    if (sum < 0) {
        bodies.set(name, 0);
    }
    return sum;
}

export default { admit, correct, release };
