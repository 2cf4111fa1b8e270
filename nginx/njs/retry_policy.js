// Reads a request's attempts from nginx's upstream variables and decides the next attempt. Pure.
//
// nginx joins the attempts within one pool by ', ' and the pools of one request by ' : '.

// The retry budget: after two engines failed while they processed a request, it is not retried. The request may be what
// kills them.
const MAX_LOST_ENGINES = 2;
// vLLM's answer to a request that needs something it does not have. Another engine of the pool would answer the same.
const UNSUPPORTED = 501;

// -> [{ address, isEngine, status, connected, answered }], oldest first. If a pool had no engine, nginx writes the
// pool's name as address.
function read(addresses, statuses, connectTimes, headerTimes) {
    const [status, connect, header] = [statuses, connectTimes, headerTimes].map(split);
    return split(addresses).map((address, n) => ({
        address,
        isEngine: /:\d+$/.test(address),
        status: Number(status[n]) || 0,
        connected: /\d/.test(connect[n] || ''),
        answered: /\d/.test(header[n] || ''),
    }));
}

function split(text) {
    return text ? text.split(/, | : /) : [];
}

// The engine failed on the request: the connection was cut before any answer, or the engine answered 500.
function isLost(attempt) {
    return attempt.isEngine && ((attempt.connected && !attempt.answered && attempt.status !== 0) || attempt.status === 500);
}

// The addresses of engines that broke the connection after the request was sent and before an answer began.
function ended(attempts) {
    return attempts.filter((attempt) => isLost(attempt) && attempt.status === 502).map((attempt) => attempt.address);
}

// The remaining retry budget: the number of engines that the request may still be sent to. earlier: whether the same
// request ended an engine before.
function remainingBudget(attempts, earlier) {
    return Math.max(0, MAX_LOST_ENGINES - (earlier ? 1 : 0) - attempts.filter(isLost).length);
}

// -> { pool, variant } of the next attempt, or null if there is none. variant: '' for a normal attempt; 'once' to send
// the request to one more engine only, because it already lost an engine; 'again' for more engines of the same pool.
//
// tried: the pools tried so far, oldest first, with repetitions; fallbackOf(pool): its fallback or ''. A pool is tried
// twice if it may have an untried engine: nginx gives up after a single engine if members come or go during the
// attempt; and engines that have just died have the fewest connections, so least_conn chooses them first, before an
// engine that is up.
function next(attempts, tried, fallbackOf, earlier) {
    const remaining = remainingBudget(attempts, earlier);
    if (!remaining || isUnsupported(attempts)) {
        return null;
    }
    const pool = tried[tried.length - 1];
    const engines = attempts.filter((attempt) => attempt.isEngine);
    const someRefused = engines.some((attempt) => !attempt.connected);
    // The pool's name may follow the engine: nginx writes it when its member list changed before the second attempt,
    // for example while requests wait for a hung engine that is removed.
    const gaveUpEarly = engines.length === 1 && !isBusy(engines[0]);
    if (tried.length === 1 && (someRefused || gaveUpEarly)) {
        return { pool, variant: remaining === 1 ? 'once' : 'again' };
    }
    const fallback = fallbackOf(pool);
    if (!fallback || tried.includes(fallback)) {
        return null;
    }
    return { pool: fallback, variant: remaining === 1 ? 'once' : '' };
}

function isBusy(attempt) {
    return attempt.status === 503 || attempt.status === 429;
}

function isUnsupported(attempts) {
    const last = attempts[attempts.length - 1];
    return Boolean(last) && last.isEngine && last.status === UNSUPPORTED;
}

// Why the request failed: 'busy', 'late', 'lost', 'down', 'unsupported', or 'failed' if each attempt ended with 500:
// either the request or the engines are at fault. someUp: an engine of the tried pools is known to be up, so if nginx
// found no engine, all engines are at their limit.
function outcome(attempts, someUp, earlier) {
    const last = attempts[attempts.length - 1];
    if (last && last.isEngine && last.status === 504 && last.connected) {
        return 'late';
    }
    if (isUnsupported(attempts)) {
        return 'unsupported';
    }
    const lost = attempts.filter(isLost);
    if (lost.length >= MAX_LOST_ENGINES && lost.every((attempt) => attempt.status === 500)) {
        return 'failed';
    }
    if (!remainingBudget(attempts, earlier) || last && last.status === 500) {
        return 'lost';
    }
    const busy = attempts.some((attempt) => attempt.isEngine && isBusy(attempt)) || (someUp && attempts.some((attempt) => !attempt.isEngine));
    return busy ? 'busy' : 'down';
}

export default { ended, next, outcome, read, remainingBudget };
