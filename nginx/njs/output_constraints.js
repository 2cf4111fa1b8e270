// Refuses schemas, regular expressions and grammars that would cost an engine too much to compile. Pure.
//
// vLLM compiles them with llguidance, which has its own limits, except where many patterns must match the same string:
// each pattern doubles its work. vLLM also reads some of them with xgrammar, whose memory grows with nested
// repetitions. docs/decisions/0055 has the figures.

// Keys and list items of everything that an engine compiles.
const MAX_KEYS = 4000;
// Tools are compiled only if the request forces a call.
const MAX_TOOL_KEYS = 10_000;
const MAX_DEPTH = 64;
// Conditions on one value beyond the first: members of `allOf`, a `pattern` next to `$ref` or `anyOf`.
const MAX_INTERSECTIONS = 8;
// A regular expression with its repetitions written out.
const MAX_REGEX_SIZE = 20_000;
// All regular expressions with repetitions, and grammars.
const MAX_REGEX_BYTES = 16 * 1024;
const KEY_STEPS = 4, CHARACTER_STEPS = 2;

const FIELDS = ['response_format', 'structured_outputs', 'text', 'guided_json', 'guided_regex', 'guided_grammar', 'guided_choice'];
const STRING_CONDITIONS = ['pattern', 'format', 'minLength', 'maxLength', 'enum', 'const'];
const COMBINATIONS = ['anyOf', 'oneOf', '$ref', 'if', 'not'];
const REGEXES = new Set(['pattern', 'regex', 'guided_regex']);
const GRAMMARS = new Set(['grammar', 'guided_grammar', 'definition']);
// Their value may be a schema in a string.
const SCHEMAS = new Set(['json', 'guided_json']);
const isArray = Array.isArray;

// `excess`: what there is too much of. `place`: the request's field.
class TooComplex extends Error {
    constructor(excess, place) {
        super(excess);
        this.place = place;
    }
}

// Throws TooComplex. `body`: the parsed request. isLong(string): whether it is the mark of a string of over 4096 bytes.
// charge(steps) counts what this costs.
function check(body, isLong, charge) {
    const counts = { place: '', keys: 0, maxKeys: MAX_KEYS, intersections: 0, regexBytes: 0, isLong, charge };
    for (let n = 0; n < FIELDS.length; n++) {
        const value = body[FIELDS[n]];
        if (value !== undefined && value !== null) {
            counts.place = FIELDS[n];
            checkMember(FIELDS[n], value, counts, 0);
        }
    }
    if (isArray(body.tools)) {
        const choice = body.tool_choice;
        counts.place = 'tools';
        counts.maxKeys = choice === 'required' || typeof choice === 'object' && choice !== null ? MAX_KEYS : MAX_TOOL_KEYS;
        walk(body.tools, counts, 0);
    }
}

// The field that has a structural tag, or ''. xgrammar reads them in vLLM's API server, whatever compiles them.
function structuralTag(body) {
    const { response_format: format, text, structured_outputs: outputs } = body;
    if (isTag(format)) {
        return 'response_format';
    }
    if (text && isTag(text.format)) {
        return 'text.format';
    }
    return outputs && outputs.structural_tag ? 'structured_outputs.structural_tag' : '';
}

function isTag(format) {
    return format ? format.type === 'structural_tag' : false;
}

function walk(value, counts, depth) {
    if (depth > MAX_DEPTH) {
        throw tooComplex(counts, `more than ${MAX_DEPTH} levels of nesting`);
    }
    if (isArray(value)) {
        for (let n = 0; n < value.length; n++) {
            countKey(counts);
            if (typeof value[n] === 'object' && value[n] !== null) {
                walk(value[n], counts, depth + 1);
            }
        }
        return;
    }
    if ((counts.intersections += intersections(value)) > MAX_INTERSECTIONS) {
        throw tooComplex(counts, `more than ${MAX_INTERSECTIONS} conditions that apply together (allOf, or pattern next to $ref, anyOf or oneOf)`);
    }
    for (const key in value) {
        countKey(counts);
        checkMember(key, value[key], counts, depth);
    }
    if (typeof value.patternProperties === 'object') {
        for (const key in value.patternProperties) {
            checkRegex(key, counts);
        }
    }
}

function checkMember(key, value, counts, depth) {
    if (typeof value === 'string') {
        if (REGEXES.has(key)) {
            checkRegex(value, counts);
        } else if (GRAMMARS.has(key)) {
            checkGrammar(value, counts);
        } else if (SCHEMAS.has(key)) {
            walk(parsed(value, counts), counts, depth + 1);
        }
    }
    if (typeof value === 'object' && value !== null) {
        walk(value, counts, depth + 1);
    }
}

function countKey(counts) {
    if (++counts.keys > counts.maxKeys) {
        throw tooComplex(counts, `more than ${counts.maxKeys} keys and list items`);
    }
    counts.charge(KEY_STEPS);
}

function parsed(text, counts) {
    if (counts.isLong(text)) {
        throw tooComplex(counts, 'a JSON schema of over 4096 bytes in a string (it may be an object instead)');
    }
    let schema = null;
    try {
        schema = JSON.parse(text);
    } catch (e) {
        // the engine says what is wrong
    }
    return typeof schema === 'object' && schema !== null ? schema : {};
}

// Number of conditions on the same value, less one.
function intersections(schema) {
    let number = isArray(schema.allOf) ? schema.allOf.length : 0;
    for (let n = 0; n < COMBINATIONS.length; n++) {
        number += schema[COMBINATIONS[n]] !== undefined ? 1 : 0;
    }
    if (number === 0) {
        return 0;
    }
    for (let n = 0; n < STRING_CONDITIONS.length; n++) {
        if (schema[STRING_CONDITIONS[n]] !== undefined) {
            number++;
            break;
        }
    }
    return number - 1;
}

function checkRegex(regex, counts) {
    if (counts.isLong(regex)) {
        throw tooComplex(counts, 'a regular expression of over 4096 bytes');
    }
    checkRepetitions(regex, counts);
}

function checkGrammar(grammar, counts) {
    if (counts.isLong(grammar)) {
        throw tooComplex(counts, 'a grammar of over 4096 bytes');
    }
    if (grammar.split('&').length - 1 > MAX_INTERSECTIONS) {
        throw tooComplex(counts, `a grammar with more than ${MAX_INTERSECTIONS} times &`);
    }
    if (/%\s*json/.test(grammar)) {
        throw tooComplex(counts, 'a grammar that contains a JSON schema (%json)');
    }
    checkRepetitions(grammar, counts);
}

function checkRepetitions(regex, counts) {
    if (!regex.includes('{')) {
        return;
    }
    if ((counts.regexBytes += regex.length) > MAX_REGEX_BYTES) {
        throw tooComplex(counts, `more than ${MAX_REGEX_BYTES >> 10} KiB of regular expressions with {}`);
    }
    counts.charge(regex.length * CHARACTER_STEPS);
    if (regexSize(regex) > MAX_REGEX_SIZE) {
        throw tooComplex(counts, `a regular expression whose repetitions multiply to more than ${MAX_REGEX_SIZE} elements`);
    }
}

function tooComplex(counts, excess) {
    return new TooComplex(excess, counts.place);
}

// Number of elements of a regular expression with every {m,n} written out. An estimate: sizes are right where brackets
// are, and an unbalanced expression is refused by the engine.
function regexSize(regex) {
    const outer = [];
    let size = 0, last = 0, isClass = false;
    for (let n = 0; n < regex.length; n++) {
        const c = regex[n];
        if (c === '\\') {
            n++;
            last = isClass ? last : 1;
            size += isClass ? 0 : 1;
        } else if (isClass) {
            isClass = c !== ']';
        } else if (c === '[') {
            isClass = true;
            size += last = 1;
        } else if (c === '(') {
            outer.push(size);
            size = last = 0;
        } else if (c === ')') {
            last = size;
            size += outer.length ? outer.pop() : 0;
        } else if (c === '{') {
            const end = regex.indexOf('}', n), times = end < 0 ? 0 : repetitions(regex.slice(n + 1, end));
            if (times) {
                size += last * (times - 1);
                last *= times;
                n = end;
            } else {
                size += last = 1;
            }
        } else {
            size += last = 1;
        }
    }
    while (outer.length) {
        size += outer.pop();
    }
    return size;
}

// '3', '3,', ',20' and '3,20' -> the larger number, at least 1; 0 for anything else.
function repetitions(braces) {
    return /^\s*\d*\s*(,\s*\d*\s*)?$/.test(braces) ? Math.max(...braces.split(',').map(Number), 1) : 0;
}

export default { check, regexSize, structuralTag, TooComplex };
