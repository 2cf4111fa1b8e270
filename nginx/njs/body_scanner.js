// Extracts the facts that the gateway needs from a request body, without parsing all of it. Pure: bytes in, facts out.
//
// A large body is mostly a few long strings: images in base64, documents. They are found by a native search for quotes
// (0.04 ms for 2 MB) and replaced by short marks; JSON.parse reads the rest, which is seldom more than a few kilobytes.
// Parsing all of 2 MB takes 1.4 ms. The engine validates the content of long strings.

import repeatedModel from 'repeated_model.js';
import imageSize from 'image_size.js';
import outputConstraints from 'output_constraints.js';

// A string with more bytes between its quotes is replaced by a mark. A body of at most this length has no such string.
const LONG = 4096;
// A longer text is identified by its length, its ends and its middle.
const MAX_VERBATIM_LENGTH = 512;
// Limit on the cost of one body: less than 20 ms of a worker. It is counted while the body is read. A step is an escaped
// quote, two backslashes, or 0.2 µs (tests/integration/scan/cost.py measures them).
const MAX_STEPS = 65_000;
const STRING_STEPS = 3, LONG_STRING_STEPS = 30, PART_STEPS = 16, KEY_STEPS = 4, UUID_STEPS = 20, IMAGE_STEPS = 80;
const STRUCTURE_BYTES_A_STEP = 8, ESCAPED_BYTES_A_STEP = 8;
// Further limits, which say what is wrong.
const MAX_LONG_STRINGS = 1000;
const MAX_SHORT_BYTES = 1024 * 1024;
// Everything outside of strings: brackets, numbers, white space.
const MAX_STRUCTURE_BYTES = 256 * 1024;
// Messages and their content parts.
const MAX_PARTS = 2000;
// Number of unusual keys in content parts, and how deep they may be nested.
const MAX_KEYS = 10_000;
const MAX_DEPTH = 64;
const MAX_LINK_BYTES = 8192;
const MAX_LINKS_BYTES = 256 * 1024;
const MAX_IMAGES = 256;
// How much is read of an image whose base64 has JSON escapes (`\/`): usually, and at most.
const ESCAPED_HEAD_BYTES = 4096;
const MAX_ESCAPED_BYTES = 128 * 1024;
const MAX_MODEL_BYTES = 256;
// A body from which a uuid is removed is copied twice.
const MAX_REWRITTEN_BYTES = 8 * 1024 * 1024;
// The mark of a long string contains this many bytes from both ends, and samples from between.
const END_BYTES = 24;
const SAMPLES = 6;
const SAMPLE_BYTES = 15;

const QUOTE = 0x22, BACKSLASH = 0x5c, COMMA = 0x2c, COLON = 0x3a;
const OPENS = [0x7b, 0x5b], CLOSES = [0x7d, 0x5d];  // { [ and } ]

// Every request runs this code with cold caches, so the number of operations matters: a name of this module needs one
// lookup where a global (Array) needs two, and `+` is an instruction where a template literal is a call.
const isArray = Array.isArray, parse = JSON.parse;
const NOTHING = { bytes: null, buffer: null, long: new Map(), steps: 0 };

// `code` is for the client's program; `place`: the part of the request that is wrong, or null.
class Refusal extends Error {
    constructor(message, code, place) {
        super(message);
        this.code = code || 'invalid_json';
        this.place = place || null;
    }
}

// bytes: ArrayBuffer -> {
//   model: string or null; stream: boolean; temperature: number or null; effort, cacheKey: string;
//   images, videos: counts; sizes: [place, width, height] of each image in the body; textBytes: approximate size of all texts; firstImage: its URL or mark, or '';
//   links: media URLs that are not `data:`; marked: whether something that looks like a content part has a `uuid`;
//   turns: for each message after the leading system messages its role, texts and media as one shortened text;
//   answered: number of turns before the last assistant turn, or 0; firstUser: the first user turn, or '';
//   prompts: number of prompts; answers: number of answers to each (`n`)
// } Two long strings with the same mark are treated as equal, except where they are checked: as images and as links.
// Throws Refusal.
// If isServed(model) is false, only `model` is returned.
function read(arrayBuffer, isServed) {
    const buffer = Buffer.from(arrayBuffer);
    if (buffer.length <= LONG) {
        return readShort(buffer.toString(), isServed);
    }
    const bytes = new Uint8Array(arrayBuffer), long = new Map();
    const source = { bytes, buffer, long, steps: 0 };
    return readText(skeleton(source), source, isServed);
}

// As read(), for a body of at most MAX_SHORT_BODY_BYTES bytes, as text.
function readShort(text, isServed) {
    return readText(text, NOTHING, isServed);
}

function readText(text, source, isServed) {
    let body;
    try {
        body = parse(text);
    } catch (e) {
        throw new Refusal('The request body is not valid JSON.');
    }
    if (typeof body !== 'object' || body === null || isArray(body)) {
        throw new Refusal('The request body must be a JSON object.');
    }
    if (repeatedModel.isRepeated(text, body)) {
        throw new Refusal('The request names its model more than once. Write `model` once, in lower case.', 'model_repeated');
    }
    try {
        return collectFacts(body, source, isServed);
    } catch (e) {
        if (e.name === 'InternalError') {  // QuickJS's stack is full
            throw tooDeep();
        }
        throw e;
    }
}

// --- long strings ---------------------------------------------------------------------------------------------------

// The body as text, with a mark in place of every long string. Fills `source`: `long`, mark -> [from, to] of each string
// with it; and `steps`.
function skeleton(source) {
    const { bytes, buffer, long } = source;
    let text = '', copied = 0, structure = 0, short = 0, longs = 0, steps = 0, to = -1, from = bytes.indexOf(QUOTE) + 1;
    while (from > 0) {
        if ((structure += from - to - 2) > MAX_STRUCTURE_BYTES) {
            throw tooMuchStructure();
        }
        to = bytes.indexOf(QUOTE, from);
        while (to > 0 && bytes[to - 1] === BACKSLASH) {
            const slashes = bytes[to - 2] === BACKSLASH ? backslashes(bytes, from, to, 2 * (MAX_STEPS - steps)) : 1;
            if ((steps += (slashes >> 1) + 1) > MAX_STEPS) {
                throw tooManySteps();
            }
            if (slashes % 2 === 0) {
                break;
            }
            to = bytes.indexOf(QUOTE, to + 1);
        }
        if (to < 0) {
            throw new Refusal('The request body is not valid JSON: a string is not terminated.');
        }
        if ((steps += to - from > LONG ? LONG_STRING_STEPS : STRING_STEPS) > MAX_STEPS) {
            throw tooManySteps();
        }
        if (to - from > LONG) {
            if (++longs > MAX_LONG_STRINGS) {
                throw tooIntricate(`more than ${MAX_LONG_STRINGS} strings of over ${LONG} bytes`);
            }
            const mark = markOf(buffer, from, to), key = `\0${mark}`, places = long.get(key);
            if (places) {
                places.push(from, to);
            } else {
                long.set(key, [from, to]);
            }
            text += `${buffer.toString('utf8', copied, from)}\\u0000${mark}`;
            copied = to;
        } else if ((short += to - from) > MAX_SHORT_BYTES) {
            throw tooIntricate(`more than ${MAX_SHORT_BYTES >> 20} MiB in strings of at most ${LONG} bytes`);
        }
        from = bytes.indexOf(QUOTE, to + 1) + 1;
    }
    if (structure + bytes.length - to - 1 > MAX_STRUCTURE_BYTES) {
        throw tooMuchStructure();
    }
    source.steps = steps + structure / STRUCTURE_BYTES_A_STEP;
    return text + buffer.toString('utf8', copied);
}

// Number of backslashes directly before `at` and after `from`. Counts at most about `limit` of them.
function backslashes(bytes, from, at, limit) {
    let first = at - 1;
    const last = Math.max(from, at - limit);
    while (first > last && bytes[first - 1] === BACKSLASH) {
        first--;
    }
    return at - first;
}

// Two different images or texts differ in many places or at an end, so samples are enough.
function markOf(buffer, from, to) {
    const stride = Math.floor((to - from - 2 * END_BYTES) / SAMPLES);
    let mark = `${to - from}:${buffer.toString('base64', from, from + END_BYTES)}${buffer.toString('base64', to - END_BYTES, to)}`;
    for (let at = from + END_BYTES, n = 0; n < SAMPLES; n++, at += stride) {
        mark += buffer.toString('base64', at, at + SAMPLE_BYTES);
    }
    return mark;
}

// --- facts ----------------------------------------------------------------------------------------------------------

const MEDIA_KEYS = new Set(['image_url', 'video_url', 'audio_url', 'file_url']);
// Media for which vLLM accepts a `uuid`.
const KEYED_MEDIA = ['image_url', 'video_url', 'audio_url', 'input_audio', 'image_embeds', 'audio_embeds', 'image_pil'];

function collectFacts(body, source, isServed) {
    const model = typeof body.model === 'string' ? body.model : null;
    if (isServed && (!model || model.length > MAX_MODEL_BYTES || !isServed(model))) {
        // The mark of a long string is not a name.
        return { model: model && source.long.has(model) ? '(a name that is too long)' : model };
    }
    const facts = {
        model,
        stream: body.stream === true,
        temperature: typeof body.temperature === 'number' ? body.temperature : null,
        effort: word(body.reasoning_effort) || (body.reasoning ? word(body.reasoning.effort) : ''),
        cacheKey: word(body.prompt_cache_key),
        cacheSalt: body.cache_salt,
        images: 0, videos: 0, textBytes: 0, firstImage: '', links: [], turns: [], answered: 0, firstUser: '', marked: false,
        sizes: [], prompts: 1, answers: Math.max(1, number(body.n), number(body.best_of)),
        list: '', message: -1, field: '', part: -1,  // the place that is being read
        parts: 0, keys: 0, linkBytes: 0, checked: 0,  // counted so far
        steps: MAX_STEPS - source.steps,  // left
    };
    checkConstraints(body, facts, source);
    facts.list = isArray(body.messages) ? 'messages' : 'input';
    const messages = isArray(body.messages) ? body.messages : listed(body.input);
    count(messages, facts);
    for (let n = 0, length = messages.length; n < length; n++) {
        const message = messages[n];
        if (typeof message === 'object' && message !== null) {
            facts.message = n;
            readMessage(message, facts, source);
        }
    }
    if (body.input !== undefined && messages !== body.input) {
        facts.list = 'input';
        facts.message = facts.part = -1;
        linksOf(body.input, facts, source);
    }
    if (body.prompt !== undefined) {
        const prompts = listed(body.prompt);
        if (typeof prompts[0] !== 'number') {  // tokens
            facts.prompts = Math.max(1, prompts.length);
            for (let n = 0, length = prompts.length; n < length; n++) {
                const prompt = prompts[n];
                const string = typeof prompt === 'object' && prompt !== null ? prompt.content : prompt;
                facts.textBytes += typeof string === 'string' ? lengthOf(string, source) : 0;
            }
        }
    }
    if (facts.marked && source.bytes && source.bytes.length > MAX_REWRITTEN_BYTES) {
        throw new Refusal(`The request has a uuid in a content part and more than ${MAX_REWRITTEN_BYTES >> 20} MiB. Send it without uuid: media are not cached by uuid.`, 'uuid_not_supported');
    }
    return facts;
}

function checkConstraints(body, facts, source) {
    const tag = outputConstraints.structuralTag(body);
    if (tag) {
        throw new Refusal(`${tag}: structural tags are not supported. Use tools or a JSON schema.`, 'structural_tag_not_supported', tag);
    }
    try {
        outputConstraints.check(body, (string) => source.long.has(string), (steps) => charge(facts, steps));
    } catch (e) {
        throw e instanceof outputConstraints.TooComplex ? tooIntricate(`${e.message} in ${e.place}`, e.place) : e;
    }
}

function readMessage(message, facts, source) {
    const role = message.role, content = message.content, turns = facts.turns;
    let turn = typeof role === 'string' ? role : '';
    if (typeof content === 'string') {
        turn += text(content, facts, source);
    } else if (isArray(content)) {
        turn += parts(content, facts, source, 'content');
    } else {
        linksOf(content, facts, source);
    }
    if (!role) {
        linksOf(Object.assign({}, message, { content: null, output: null }), facts, source);
    }
    if (isArray(message.output)) {  // the result of a tool may contain images too
        turn += parts(message.output, facts, source, 'output');
    } else {
        linksOf(message.output, facts, source);
    }
    if (message.tool_calls) {
        turn += JSON.stringify(message.tool_calls);
    }
    const before = turns.length;
    if (role === 'user') {
        facts.firstUser = facts.firstUser || turn;
    } else if (!before && (role === 'system' || role === 'developer')) {
        return;
    } else if (before && (role === 'assistant' || message.type === 'function_call' || message.type === 'reasoning')) {
        facts.answered = before;
    }
    turns[before] = turn;
}

function parts(list, facts, source, field) {
    let summary = '';
    count(list, facts);
    facts.field = field;
    for (let n = 0, length = list.length; n < length; n++) {
        facts.part = n;
        summary += readPart(list[n], facts, source);
    }
    facts.part = -1;
    return summary;
}

// For the client: `messages[2].content[1]`.
function placeOf(facts) {
    const message = facts.message < 0 ? facts.list : `${facts.list}[${facts.message}]`;
    return facts.part < 0 ? message : `${message}.${facts.field}[${facts.part}]`;
}

// Text that identifies the part, to distinguish turns. vLLM reads only the fields that belong to a part's type.
function readPart(part, facts, source) {
    if (typeof part !== 'object' || part === null) {
        return typeof part === 'string' ? text(part, facts, source) : '';
    }
    const type = part.type;
    if (part.uuid !== undefined) {
        readUuid(part, facts);
    }
    if (type === 'text' && typeof part.text === 'string') {
        return text(part.text, facts, source);
    }
    const image = part.image_url;
    if (type === 'image_url' && typeof image === 'object' && image !== null && typeof image.url === 'string') {
        return imageUrl(image.url, facts, source);
    }
    let summary = '';
    for (const key in part) {
        const value = part[key];
        if (++facts.keys > MAX_KEYS) {
            throw tooManyKeys();
        }
        charge(facts, KEY_STEPS);
        if (key === 'text' && typeof value === 'string') {
            summary += text(value, facts, source);
        } else if (key === 'image_url') {
            const url = word(value) || word(value && value.url);
            summary += url ? imageUrl(url, facts, source) : '';
            facts.images += url ? 0 : 1;
            linksOf(value, facts, source, 'url');
        } else if (MEDIA_KEYS.has(key)) {
            facts.videos += key === 'video_url' ? 1 : 0;
            summary += shortened(word(value) || word(value && value.url));
            linksOf({ [key]: value }, facts, source);
        } else if (typeof value === 'object') {
            linksOf(value, facts, source);
        }
    }
    return summary;
}

// vLLM caches media by `uuid` and returns them to any client that sends the same uuid, so a uuid is never sent to an
// engine.
function readUuid(part, facts) {
    facts.marked = true;
    charge(facts, UUID_STEPS);
    const key = KEYED_MEDIA.find((kind) => kind === part.type || part[kind] !== undefined) || (part.type === 'input_image' ? 'image_url' : '');
    const value = part[key];
    if (part.uuid !== null && key && (!value || typeof value === 'object' && 'url' in value && !value.url)) {
        throw new Refusal(`A content part has a uuid but no ${key}. Media are not cached by uuid: send the ${key} itself.`, 'media_missing', placeOf(facts));
    }
}

function text(string, facts, source) {
    const length = string.length;
    facts.textBytes += source === NOTHING ? length : lengthOf(string, source);
    return length <= MAX_VERBATIM_LENGTH ? '\0' + string : shortened(string);
}

function imageUrl(url, facts, source) {
    facts.images++;
    facts.firstImage = facts.firstImage || url;
    link(url, facts, source, true);
    return shortened(url);
}

function shortened(string) {
    const length = string.length;
    if (length <= MAX_VERBATIM_LENGTH) {
        return '\0' + string;
    }
    const middle = length >> 1;
    return '\0' + length + ':' + string.slice(0, 160) + string.slice(middle, middle + 160) + string.slice(-160);
}

// Collects every media URL in a message, at any depth. The key `except` is skipped at the top level. A URL that is not
// in a video, a sound or a file is an image.
function linksOf(value, facts, source, except, depth, isOther) {
    if (typeof value !== 'object') {
        return;
    }
    if (depth > MAX_DEPTH) {
        throw tooDeep();
    }
    for (const key in value) {
        const inner = value[key], isMedia = MEDIA_KEYS.has(key), isOtherMedia = isMedia ? key !== 'image_url' : isOther;
        if (++facts.keys > MAX_KEYS) {
            throw tooManyKeys();
        }
        charge(facts, KEY_STEPS);
        if (key === 'uuid') {
            facts.marked = true;
        }
        if (typeof inner === 'object') {
            linksOf(inner, facts, source, '', (depth || 0) + 1, isOtherMedia);
        } else if (typeof inner === 'string' && key !== except && (isMedia || key === 'url')) {
            link(inner, facts, source, !isOtherMedia);
        }
    }
}

// Checks a media URL. All strings with one mark are checked, and the largest image counts: a small image cannot hide a
// large one.
function link(url, facts, source, isImage) {
    const places = source.long.get(url);
    let size = null;
    if (!places) {
        size = isData(url, facts) && isImage ? shortImage(url, facts) : null;
    } else if (!places.isChecked || isImage && places.size === undefined) {
        for (let n = 0; n < places.length; n += 2) {
            const start = beginning(source.bytes, source.buffer, places[n], places[n + 1]);
            if (isData(start, facts) && isImage) {
                const other = longImage(start, source, places[n], places[n + 1], facts);
                size = !size || other[0] * other[1] > size[0] * size[1] ? other : size;
            }
        }
        places.isChecked = true;
        places.size = isImage ? size : undefined;
    } else if (isImage) {
        size = places.size;
    }
    if (size) {
        facts.sizes.push([placeOf(facts), size[0], size[1]]);
    }
}

// No white space before the end of the type, because URL parsers drop some of it.
const DATA = /^\s*data:[^\s,;]*[,;]/i;
const FRAMES = /^\s*data:video\/jpe?g/i;
// vLLM accepts any media type, but only this spelling of `base64`.
const BASE64 = /^data:[!-+\x2d-~]*;base64,/i;

// Whether a URL is a data: URL, and not a link.
function isData(start, facts) {
    if (!DATA.test(start)) {
        if ((facts.linkBytes += start.length) > MAX_LINKS_BYTES) {
            throw tooIntricate(`more than ${MAX_LINKS_BYTES >> 10} KiB of links`);
        }
        facts.links.push(start);
        return false;
    }
    if (FRAMES.test(start)) {
        throw new Refusal(`The video cannot be read: ${placeOf(facts)} of type video/jpeg is a list of frames, to which the limits of a pool cannot apply. Send a video file, or the frames as images.`, 'video_type_not_allowed', placeOf(facts));
    }
    const head = BASE64.exec(start);
    if (!head || !head[0].endsWith(';base64,')) {
        throw new Refusal(`The data: URL cannot be read: ${placeOf(facts)} is not in base64. Send data:TYPE;base64,DATA.`, 'data_url_not_base64', placeOf(facts));
    }
    return true;
}

function shortImage(url, facts) {
    const skip = url.indexOf(',') + 1;
    return imageOf({ length: url.length - skip, slice: (from, to) => url.slice(skip + from, skip + to) }, facts);
}

function longImage(start, source, from, to, facts) {
    const skip = start.indexOf(',') + 1, { bytes, buffer } = source, first = from + skip;
    // Escapes shift what follows, so there must be none before what is read. The rest is not searched.
    let searched = from;
    const slice = (a, b) => {
        const end = Math.min(first + b, to);
        if (end > searched) {
            if (bytes.subarray(searched, end).indexOf(BACKSLASH) >= 0) {
                throw HAS_ESCAPES;
            }
            searched = end;
        }
        return buffer.toString('utf8', first + a, end);
    };
    try {
        return imageOf({ length: to - first, slice }, facts);
    } catch (e) {
        if (e !== HAS_ESCAPES) {
            throw e;
        }
        return imageOf(new EscapedData(buffer, from, to, skip, facts), facts);
    }
}

const HAS_ESCAPES = {};

// [width, height] of an image. data: {length, slice(from, to)} of its base64.
function imageOf(data, facts) {
    if (++facts.checked > MAX_IMAGES) {
        throw tooIntricate(`more than ${MAX_IMAGES} images`);
    }
    charge(facts, IMAGE_STEPS);
    try {
        return imageSize.read(data, facts);
    } catch (e) {
        if (!(e instanceof imageSize.Unreadable)) {
            throw e;
        }
        throw new Refusal(`The image cannot be read: ${placeOf(facts)} ${e.message}. Send ${imageSize.FORMATS} in standard base64.`, 'image_unreadable', placeOf(facts));
    }
}

// Base64 with JSON escapes: some clients write `\/`. Only as much of its beginning is unescaped as is read.
class EscapedData {
    constructor(buffer, from, to, skip, facts) {
        this.buffer = buffer;
        this.from = from;
        this.to = to;
        this.skip = skip;
        this.facts = facts;
        this.unescape(ESCAPED_HEAD_BYTES);
    }

    unescape(bytes) {
        const isWhole = this.from + bytes >= this.to;
        charge(this.facts, Math.min(bytes, this.to - this.from) / ESCAPED_BYTES_A_STEP);
        const raw = this.buffer.toString('utf8', this.from, Math.min(this.to, this.from + bytes));
        this.text = unescaped(isWhole ? raw : withoutTail(raw)).slice(this.skip);
        this.length = isWhole ? this.text.length : Infinity;
        this.bytes = bytes;
    }

    slice(from, to) {
        while (to > this.text.length && this.length === Infinity) {
            if (this.bytes >= MAX_ESCAPED_BYTES) {
                throw new imageSize.Unreadable(`has JSON escapes in its base64 and its size after more than ${MAX_ESCAPED_BYTES >> 10} KiB`);
            }
            this.unescape(MAX_ESCAPED_BYTES);
        }
        return this.text.slice(from, to);
    }
}

function unescaped(text) {
    try {
        return parse(`"${text}"`);
    } catch (e) {
        throw new Refusal('The request body is not valid JSON: a string contains an invalid escape.');
    }
}

// Without an escape that is cut.
function withoutTail(text) {
    return text.replace(/\\[^\\]{0,5}$/, '');
}

function lengthOf(string, source) {
    const places = source.long.get(string);
    return places ? places[1] - places[0] : string.length;
}

const PLAIN_DATA = /^data:[a-z0-9.+\/-]{1,40};base64,/;

// The decoded start of a long string. For a string that is too long for a link it is '', which no list of domains
// allows.
function beginning(bytes, buffer, from, to) {
    if (bytes[from] === 0x64 && bytes[from + 1] === 0x61 && bytes[from + 2] === 0x74 && bytes[from + 3] === 0x61) {
        const head = buffer.toString('utf8', from, from + 64);
        if (PLAIN_DATA.test(head)) {
            return head;
        }
    }
    const raw = buffer.toString('utf8', from, Math.min(to, from + MAX_LINK_BYTES));
    const url = unescaped(to - from > MAX_LINK_BYTES ? withoutTail(raw.slice(0, 2048)) : raw);
    return to - from > MAX_LINK_BYTES && !/^\s*data:/i.test(url) ? '' : url;
}

function word(value) {
    return typeof value === 'string' ? value : '';
}

// Engines accept a number in a string too.
function number(value) {
    return typeof value === 'number' || typeof value === 'string' ? Math.ceil(Number(value)) || 0 : 0;
}

function listed(value) {
    return isArray(value) ? value : typeof value === 'string' ? [{ role: 'user', content: value }] : [];
}

function count(list, facts) {
    if ((facts.parts += list.length) > MAX_PARTS) {
        throw tooIntricate(`more than ${MAX_PARTS} messages and content parts`);
    }
    charge(facts, list.length * PART_STEPS);
}

function charge(facts, steps) {
    if ((facts.steps -= steps) < 0) {
        throw tooIntricate('too many strings, escapes, messages, parts and images together');
    }
}

function tooIntricate(excess, place) {
    return new Refusal(`The request body is too complex: it has ${excess}. Send a simpler or smaller request.`, 'too_intricate', place);
}

function tooManySteps() {
    return tooIntricate(`more than ${MAX_STEPS} escaped quotes, or a third as many strings`);
}

function tooMuchStructure() {
    return tooIntricate(`more than ${MAX_STRUCTURE_BYTES >> 10} KiB outside of strings`);
}

function tooManyKeys() {
    return tooIntricate(`more than ${MAX_KEYS} unusual keys in messages`);
}

function tooDeep() {
    return tooIntricate(`more than ${MAX_DEPTH} levels of nesting`);
}

// --- a changed body -------------------------------------------------------------------------------------------------

// The body with `name` as its top-level `model`; all other bytes are unchanged. Only for bodies that `read` accepted.
function withModel(arrayBuffer, name) {
    return rewritten(arrayBuffer, name);
}

// The body without the `uuid` of content parts and, if `name` is given, with it as the top-level `model`; all other
// bytes are unchanged. If the model is written twice, or as `Model`, every occurrence is replaced: parsers differ in
// which occurrence they use.
function rewritten(arrayBuffer, name) {
    const bytes = new Uint8Array(arrayBuffer), buffer = Buffer.from(arrayBuffer), length = bytes.length, model = JSON.stringify(name);
    const changes = [], outer = [];  // [from, to, text]
    let here = null;
    for (let at = 0; at < length; at++) {
        const byte = bytes[at];
        if (byte === QUOTE) {
            const from = at;
            at = endOfString(bytes, from + 1);
            if (here.awaitsKey) {
                here.awaitsKey = false;
                here.start = from;
                here.key = here.isRoot || here.isMedia ? JSON.parse(buffer.toString('utf8', from, at + 1)) : '';
                here.value = null;
            } else if (here.isRoot) {
                here.value = [from, at + 1];
            }
        } else if (byte === OPENS[0] || byte === OPENS[1]) {
            outer.push(here);
            here = inside(here, byte === OPENS[0]);
        } else if (byte === CLOSES[0] || byte === CLOSES[1]) {
            endMember(here, at, false, model, changes);
            here = outer.pop();
        } else if (byte === COMMA) {
            endMember(here, at, true, model, changes);
        } else if (byte === COLON) {
            here.colon = at;
        }
    }
    const pieces = [];
    let copied = 0;
    for (const [from, to, text] of changes) {
        pieces.push(buffer.subarray(copied, from), Buffer.from(text));
        copied = to;
    }
    pieces.push(buffer.subarray(copied));
    return Buffer.concat(pieces);
}

const ROOT_KEYS = new Set(['messages', 'input']);
const PART_KEYS = new Set(['content', 'output', ...KEYED_MEDIA]);

// State for an object or array that begins. isMedia: it is in `messages` or `input`, on a path that leads to content
// parts.
function inside(outer, isObject) {
    const isMedia = outer !== null && (outer.isRoot ? ROOT_KEYS.has(outer.key) : outer.isMedia && (!outer.isObject || PART_KEYS.has(outer.key)));
    return { isObject, isMedia, isRoot: outer === null, awaitsKey: isObject, key: '', start: 0, colon: 0, value: null, comma: -1 };
}

// Handles the end of a key with its value at `at`. `more`: a comma follows.
function endMember(here, at, more, model, changes) {
    if (!here.isObject) {
        return;
    }
    const isUuid = here.isMedia && here.key === 'uuid';
    if (isUuid) {
        const from = more || here.comma < 0 ? here.start : here.comma;
        while (changes.length && changes[changes.length - 1][0] >= from) {
            changes.pop();
        }
        changes.push([from, more ? at + 1 : at, '']);
    } else if (model && here.isRoot && here.key.toLowerCase() === 'model') {
        const [from, to] = here.value || [here.colon + 1, at];
        changes.push([from, to, model]);
    }
    if (more && !isUuid) {
        here.comma = at;
    }
    here.key = '';
    here.awaitsKey = more;
}

// Position of the closing quote of the string that begins at `from`.
function endOfString(bytes, from) {
    let at = bytes.indexOf(QUOTE, from);
    while (bytes[at - 1] === BACKSLASH && backslashes(bytes, from, at, at) % 2) {
        at = bytes.indexOf(QUOTE, at + 1);
    }
    return at;
}

export default { MAX_SHORT_BODY_BYTES: LONG, MAX_MODEL_BYTES, read, readShort, Refusal, rewritten, withModel };
