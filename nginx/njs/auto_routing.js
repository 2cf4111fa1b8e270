// `model: auto`: chooses the pool for a request and gives the reason. Pure.

// -> { pool, reason }, or null if no rule matches.
//
// rules: [{ pool, min_images, min_videos, min_text_bytes, reasoning_effort: [..] }]. The first rule whose conditions
// are all met is used. facts: the result of bodyScanner.read. budgetMs: the client's latency budget, or 0. A pool whose
// measured p95 exceeds the budget is skipped; if all pools exceed it, the fastest is used. p95Ms: pool -> ms, or 0
// while not measured.
function choose(rules, facts, budgetMs, p95Ms) {
    const fitting = rules.map((rule, n) => ({ pool: rule.pool, reason: reason(rule, facts, n + 1) })).filter((candidate) => candidate.reason);
    if (!fitting.length) {
        return null;
    }
    if (!budgetMs) {
        return fitting[0];
    }
    const quick = fitting.find((candidate) => p95Ms(candidate.pool) <= budgetMs);
    if (quick === fitting[0]) {
        return quick;
    }
    if (quick) {
        return {
            pool: quick.pool,
            reason: `${quick.reason}; p95 of ${fitting[0].pool} is ${p95Ms(fitting[0].pool)} ms, over the budget of ${budgetMs} ms`,
        };
    }
    const fastest = fitting.reduce((best, candidate) => (p95Ms(candidate.pool) < p95Ms(best.pool) ? candidate : best));
    return { pool: fastest.pool, reason: `${fastest.reason}; the fastest, though its p95 is over the budget of ${budgetMs} ms` };
}

// Why rule number `n` matches, or '' if it does not match.
function reason(rule, facts, n) {
    const met = [];
    for (const [minimum, count, unit] of [
        [rule.min_images, facts.images, 'image(s)'],
        [rule.min_videos, facts.videos, 'video(s)'],
        [rule.min_text_bytes, facts.textBytes, 'bytes of text'],
    ]) {
        if (minimum) {
            if (count < minimum) {
                return '';
            }
            met.push(`${count} ${unit}`);
        }
    }
    if (rule.reasoning_effort.length) {
        if (!rule.reasoning_effort.includes(facts.effort)) {
            return '';
        }
        met.push(`reasoning effort ${facts.effort}`);
    }
    return `rule ${n}: ${met.join(', ') || 'any request'}`;
}

export default { choose };
