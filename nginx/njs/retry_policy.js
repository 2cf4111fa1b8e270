// What became of a request so far, read from nginx's upstream variables, and where it goes next. Pure.
//
// nginx joins the attempts within one pool by ', ' and the pools of one request by ' : '.

// A request is not handed on for ever: two engines lost while they worked on it are enough (it may be what kills them).
const MOST_LOST = 2;

// -> [{ address, status, connected, answered }], oldest first. Where a pool had no engine to ask, nginx writes its name.
function read(addresses, statuses, connectTimes, headerTimes) {
    const [status, connect, header] = [statuses, connectTimes, headerTimes].map(split);
    return split(addresses).map((address, n) => ({
        address,
        asked: /:\d+$/.test(address),
        status: Number(status[n]) || 0,
        connected: /\d/.test(connect[n] || ''),
        answered: /\d/.test(header[n] || ''),
    }));
}

function split(text) {
    return text ? text.split(/, | : /) : [];
}

// Lost while it worked: the connection was cut before any answer, or the engine answered that it failed.
function isLost(attempt) {
    return attempt.asked && ((attempt.connected && !attempt.answered && attempt.status !== 0) || attempt.status === 500);
}

// The number of engines a request may still be given to.
function left(attempts) {
    return Math.max(0, MOST_LOST - attempts.filter(isLost).length);
}

// -> { pool, how } to ask next, or null when all has been tried. how: '' as any request, 'once' a single engine, because one
// was lost already; 'again' more engines of the same pool.
//
// asked: the pools asked so far, oldest first, with repetitions; following(pool): its fallback or ''.
// A pool is asked twice where it may hold an engine that was not asked: nginx gives up after a single one when members come
// or go meanwhile; and engines that just died have the fewest connections, so least_conn takes them first.
function next(attempts, asked, following) {
    const remaining = left(attempts);
    if (!remaining) {
        return null;
    }
    const pool = asked[asked.length - 1];
    const engines = attempts.filter((one) => one.asked);
    const nobodyThere = engines.length > 0 && engines.every((one) => !one.connected);
    // Beside the engine there may be the pool's name: nginx does so when it looked for a second one and its list had changed,
    // as it does while requests wait on an engine that hangs and is taken out.
    const gaveUpEarly = engines.length === 1 && !isBusy(engines[0]);
    if (asked.length === 1 && (nobodyThere || gaveUpEarly)) {
        return { pool, how: remaining === 1 ? 'once' : 'again' };
    }
    const fallback = following(pool);
    if (!fallback || asked.includes(fallback)) {
        return null;
    }
    return { pool: fallback, how: remaining === 1 ? 'once' : '' };
}

function isBusy(attempt) {
    return attempt.status === 503 || attempt.status === 429;
}

// Why nothing answered: 'busy', 'late', 'lost' or 'down'. someUp: an engine of the asked pools is known to be up, so where
// nginx found none to ask, all are at their limit.
function outcome(attempts, someUp) {
    const last = attempts[attempts.length - 1];
    if (last && last.asked && last.status === 504 && last.connected) {
        return 'late';
    }
    if (!left(attempts)) {
        return 'lost';
    }
    const busy = attempts.some((one) => one.asked && isBusy(one)) || (someUp && attempts.some((one) => !one.asked));
    return busy ? 'busy' : 'down';
}

export default { left, next, outcome, read };
