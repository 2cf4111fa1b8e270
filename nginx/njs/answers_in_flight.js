// Counts the answers in flight of each key that has a limit `in_flight`. A request generates `n` answers to each of its
// prompts, and nginx's limit_conn counts it once.

// Whether a request may start. If so, its answers count until settle().
function admit(r, answers) {
    const v = r.variables, limit = Number(v.manyeyes_in_flight_limit), counts = ngx.shared.answers;
    if (!limit) {
        return true;
    }
    if (counts.incr(v.manyeyes_key, answers, 0) > limit) {
        counts.incr(v.manyeyes_key, -answers, 0);
        return false;
    }
    v.manyeyes_counted_answers = String(answers);
    return true;
}

// Subtracts what the request counted when it was admitted, and returns it.
function settle(r) {
    const v = r.variables, answers = Number(v.manyeyes_counted_answers);
    if (answers) {
        ngx.shared.answers.incr(v.manyeyes_key, -answers, 0);
    }
    return v.manyeyes_counted_answers;
}

// Why a request cannot be served, however few others there are: '' or a sentence.
function refusal(facts, limits, keyLimit) {
    const { answers, prompts } = facts, all = answers * prompts;
    if (limits && answers > limits.answers) {
        return `The request asks for too many answers: n is ${answers}, the limit is ${limits.answers}. Send several requests.`;
    }
    if (limits && all > limits.in_all) {
        return `The request asks for too many answers: n x prompts is ${answers} x ${prompts}, the limit is ${limits.in_all}. Send several requests.`;
    }
    if (keyLimit && all > keyLimit) {
        return `The request asks for too many answers: n x prompts is ${answers} x ${prompts}, and its key may have ${keyLimit} answers in flight. Send several requests.`;
    }
    return '';
}

export default { admit, refusal, settle };
