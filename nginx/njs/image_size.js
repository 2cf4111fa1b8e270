// Reads width and height of an image from its headers, without decoding pixels. Pure: base64 in, size out.
//
// The result is what the engine's decoder (Pillow) allocates. Where a format lets two readers find two sizes (two
// IHDR chunks, a GIF frame beyond the screen, a TIFF tile beyond the image), the image is Unreadable or the larger size
// counts. Engines decode the first frame of an animation or the first page only.

// Base64 characters that are decoded together. The cost is in steps of body_scanner.js.
const WINDOW = 256;
const WINDOW_STEPS = 30;
const BASE64 = /^[A-Za-z0-9+\/]*$/, LAST_BASE64 = /^[A-Za-z0-9+\/]*={0,2}$/;
const FORMATS = 'PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF';

// `message`: why the size cannot be read, after "the image".
class Unreadable extends Error {}

// The bytes of an image.
class File {
    constructor(data, budget) {
        this.data = data;
        this.budget = budget;
        this.load(0);
    }

    load(at) {
        const from = Math.floor(at / 3) * 4, text = this.data.slice(from, from + WINDOW);
        const isEnd = from + text.length >= this.data.length;
        if (!(isEnd ? LAST_BASE64 : BASE64).test(text) || text.length % 4) {
            throw notBase64();
        }
        this.start = Math.floor(at / 3) * 3;
        this.window = Buffer.from(text, 'base64');
    }

    byte(at) {
        const n = at - this.start;
        if (n >= 0 && n < this.window.length) {
            return this.window[n];
        }
        this.charge(WINDOW_STEPS);
        this.load(at);
        if (at - this.start >= this.window.length) {
            throw new Unreadable('ends before its size');
        }
        return this.window[at - this.start];
    }

    charge(steps) {
        if ((this.budget.steps -= steps) < 0) {
            throw new Unreadable('has too much metadata before its size, or the request has too many images and parts');
        }
    }

    text(at, length) {
        let text = '';
        for (let n = 0; n < length; n++) {
            text += String.fromCharCode(this.byte(at + n));
        }
        return text;
    }

    big16(at) {
        return this.byte(at) << 8 | this.byte(at + 1);
    }

    big32(at) {
        return this.big16(at) * 65536 + this.big16(at + 2);
    }

    little16(at) {
        return this.byte(at) | this.byte(at + 1) << 8;
    }

    little24(at) {
        return this.little16(at) | this.byte(at + 2) << 16;
    }

    little32(at) {
        return this.little16(at) + this.little16(at + 2) * 65536;
    }
}

// -> [width, height]. data: {length, slice(from, to)} of the base64 characters; budget: {steps} that are left.
// Throws Unreadable.
function read(data, budget) {
    const file = new File(data, budget);
    const size = reader(file)(file);
    if (!size[0] || !size[1]) {
        throw new Unreadable('has no pixels');
    }
    return size;
}

function reader(file) {
    switch (file.big32(0)) {
    case 0x89504e47: return png;
    case 0x47494638: return gif;
    case 0x49492a00: return (one) => tiff(one, one.little16, one.little32);
    case 0x4d4d002a: return (one) => tiff(one, one.big16, one.big32);
    case 0x52494646: return webp;
    }
    switch (file.big16(0)) {
    case 0xffd8: return jpeg;
    case 0x424d: return bmp;
    }
    if (file.big32(4) === 0x66747970) {
        return avif;
    }
    throw new Unreadable(`is not ${FORMATS}`);
}

function notBase64() {
    return new Unreadable('is not in standard base64, padded and without blanks or percent-escapes');
}

function damaged() {
    return new Unreadable('is damaged');
}

// Chunks up to the first of pixels. Pillow takes the last IHDR.
function png(file) {
    if (file.big32(4) !== 0x0d0a1a0a || file.big32(8) !== 13 || file.big32(12) !== 0x49484452) {
        throw damaged();
    }
    for (let at = 33; ;) {
        const kind = file.big32(at + 4);
        if (kind === 0x49444154) {  // IDAT
            return [file.big32(16), file.big32(20)];
        }
        if (kind === 0x49484452) {
            throw damaged();
        }
        file.charge(12);
        at += 12 + file.big32(at);
    }
}

// Segments up to the first scan.
function jpeg(file) {
    let size = null;
    for (let at = 2; ;) {
        if (file.byte(at) !== 0xff) {
            throw damaged();
        }
        const marker = file.byte(at + 1);
        if (marker === 0xff) {  // padding
            at++;
        } else if (marker === 0x01 || marker >= 0xd0 && marker <= 0xd9) {
            throw damaged();  // readers differ in whether these have a length
        } else if (marker === 0xda) {  // start of scan
            if (!size) {
                throw damaged();
            }
            return size;
        } else {
            const length = file.big16(at + 2);
            // Start of frame; C4, C8 and CC are tables and extensions.
            if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
                if (size) {
                    throw damaged();
                }
                size = [file.big16(at + 7), file.big16(at + 5)];
            }
            if (length < 2) {
                throw damaged();
            }
            at += 2 + length;
        }
        file.charge(10);
    }
}

function webp(file) {
    if (file.big32(8) !== 0x57454250) {
        throw new Unreadable(`is not ${FORMATS}`);
    }
    switch (file.big32(12)) {
    case 0x56503820:  // 'VP8 '
        if (file.byte(23) !== 0x9d || file.byte(24) !== 0x01 || file.byte(25) !== 0x2a) {
            throw damaged();
        }
        return [file.little16(26) & 0x3fff, file.little16(28) & 0x3fff];
    case 0x5650384c:  // 'VP8L'
        if (file.byte(20) !== 0x2f) {
            throw damaged();
        }
        return [1 + (file.little16(21) & 0x3fff), 1 + (file.little32(21) >>> 14 & 0x3fff)];
    case 0x56503858:  // 'VP8X': the canvas; frames cannot be larger
        return [1 + file.little24(24), 1 + file.little24(27)];
    }
    throw damaged();
}

// The screen, enlarged by a first frame that is beyond it.
function gif(file) {
    const flags = file.byte(10);
    if (file.byte(4) !== 0x37 && file.byte(4) !== 0x39 || file.byte(5) !== 0x61) {
        throw damaged();
    }
    let at = 13 + (flags & 0x80 ? 3 << (flags & 7) + 1 : 0);
    while (file.byte(at) === 0x21) {  // an extension
        at += 2;
        if (!file.byte(at)) {  // Pillow reads on
            throw damaged();
        }
        for (let length = file.byte(at); length; length = file.byte(at)) {
            file.charge(3);
            at += 1 + length;
        }
        at++;
    }
    if (file.byte(at) !== 0x2c) {
        throw damaged();
    }
    return [
        Math.max(file.little16(6), file.little16(at + 1) + file.little16(at + 5)),
        Math.max(file.little16(8), file.little16(at + 3) + file.little16(at + 7)),
    ];
}

const BMP_HEADERS = [40, 52, 56, 64, 108, 124];

function bmp(file) {
    const header = file.little32(14);
    if (header === 12) {
        return [file.little16(18), file.little16(20)];
    }
    if (!BMP_HEADERS.includes(header)) {
        throw damaged();
    }
    const height = file.little32(22);
    return [file.little32(18), file.byte(25) === 0xff ? 2 ** 32 - height : height];  // negative: top row first
}

// The first directory. Its place may be anywhere in the file.
function tiff(file, read16, read32) {
    const start = read32.call(file, 4), entries = read16.call(file, start), found = new Map();
    for (let n = 0, at = start + 2; n < entries; n++, at += 12) {
        const tag = read16.call(file, at);
        file.charge(5);
        if (tag === 256 || tag === 257 || tag === 322 || tag === 323) {  // sides of the image and of a tile
            const type = read16.call(file, at + 2);
            if (found.has(tag) || type !== 3 && type !== 4 || read32.call(file, at + 4) !== 1) {
                throw damaged();
            }
            found.set(tag, type === 3 ? read16.call(file, at + 8) : read32.call(file, at + 8));
        }
    }
    const width = found.get(256), height = found.get(257);
    return width && height ? [Math.max(width, found.get(322) || 0), Math.max(height, found.get(323) || 0)] : [0, 0];
}

// --- AVIF -----------------------------------------------------------------------------------------------------------

// The largest `ispe` property. The decoder allocates what the AV1 data names, so each item must fit into it.
function avif(file) {
    const brand = file.text(8, 4), ends = file.big32(0);
    if (brand !== 'avif' && brand !== 'mif1' || ends > 255) {
        throw new Unreadable(`is an image sequence, or is not ${FORMATS}`);
    }
    const meta = onlyBox(file, ends, Infinity, 'meta');
    const boxes = boxesIn(file, meta.from + 4, meta.to);
    const properties = onlyOf(boxesIn(file, onlyOf(boxes, 'iprp').from, onlyOf(boxes, 'iprp').to), 'ipco');
    let size = [0, 0];
    for (const { kind, from } of boxesIn(file, properties.from, properties.to)) {
        if (kind === 'ispe') {
            const other = [file.big32(from + 4), file.big32(from + 8)];
            size = other[0] * other[1] > size[0] * size[1] ? other : size;
        }
    }
    const types = itemTypes(file, onlyOf(boxes, 'iinf'));
    let pixels = 0;
    for (const { id, at, end } of itemPlaces(file, onlyOf(boxes, 'iloc'), types)) {
        const [width, height] = frameSize(file, at, end);
        pixels += width * height;
        // A grid and its transparency are twice the image, and the last tiles are partly outside of it.
        if (types.get(id) !== 'av01' || width > size[0] || height > size[1] || pixels > 4 * size[0] * size[1]) {
            throw new Unreadable('is larger in its AV1 data than in its header');
        }
    }
    return size;
}

function boxesIn(file, from, to) {
    const boxes = [];
    for (let at = from; at < to;) {
        const length = file.big32(at);
        file.charge(16);
        if (length < 8 || at + length > to) {
            throw damaged();
        }
        boxes.push({ kind: file.text(at + 4, 4), from: at + 8, to: at + length });
        at += length;
    }
    return boxes;
}

function onlyOf(boxes, kind) {
    const found = boxes.filter((box) => box.kind === kind);
    if (found.length !== 1) {
        throw damaged();
    }
    return found[0];
}

// A box of the file's outermost level, where the data follows.
function onlyBox(file, at, to, kind) {
    for (let n = 0; n < 8; n++) {
        const found = file.text(at + 4, 4), length = file.big32(at);
        file.charge(16);
        if (found === kind) {
            return { from: at + 8, to: at + length };
        }
        if (length < 8 || found === 'moov') {
            break;
        }
        at += length;
    }
    throw damaged();
}

// Map of item id -> type.
function itemTypes(file, box) {
    const isLong = file.byte(box.from) > 0, types = new Map();
    for (const { kind, from, to } of boxesIn(file, box.from + (isLong ? 8 : 6), box.to)) {
        const version = file.byte(from);
        if (kind !== 'infe' || version < 2 || version > 3 || to - from < 14) {
            throw damaged();
        }
        types.set(version === 2 ? file.big16(from + 4) : file.big32(from + 4), file.text(from + (version === 2 ? 8 : 10), 4));
    }
    return types;
}

// Where the data of each AV1 item is: [{id, at, end}].
function itemPlaces(file, box, types) {
    const version = file.byte(box.from), places = [];
    const sizes = file.big16(box.from + 4), idBytes = version < 2 ? 2 : 4;
    const bytes = [sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, version ? sizes & 15 : 0];  // of offset, length, base, index
    let at = box.from + 6;
    const next = (count) => {
        at += count;
        return count === 0 ? 0 : count === 2 ? file.big16(at - 2) : count === 4 ? file.big32(at - 4) : file.big32(at - 8) * 2 ** 32 + file.big32(at - 4);
    };
    if (version > 2 || bytes.some((count) => count !== 0 && count !== 4 && count !== 8)) {
        throw damaged();
    }
    for (let items = next(idBytes); items > 0; items--) {
        const id = next(idBytes), method = version ? next(2) & 15 : 0;
        next(2);
        const base = next(bytes[2]), isAv1 = types.get(id) === 'av01';
        const extents = next(2);
        if (isAv1 && (method || extents !== 1)) {
            throw damaged();
        }
        for (let n = 0; n < extents; n++) {
            file.charge(8);
            next(bytes[3]);
            const from = base + next(bytes[0]), length = next(bytes[1]);
            if (isAv1) {
                places.push({ id, at: from, end: from + length });
            }
        }
    }
    return places;
}

// Width and height in the only sequence header of an item's AV1 data.
function frameSize(file, at, end) {
    let size = null;
    while (at < end) {
        const header = file.byte(at), kind = header >> 3 & 15;
        file.charge(8);
        at += header & 4 ? 2 : 1;
        let length = end - at;
        if (header & 2) {
            length = 0;
            for (let n = 0, more = 0x80; more; n++) {
                const byte = file.byte(at++);
                more = byte & 0x80;
                length += (byte & 0x7f) * 2 ** (7 * n);
                if (n > 3 && more) {
                    throw damaged();
                }
            }
        }
        if (kind === 1) {
            if (size) {
                throw damaged();
            }
            size = sequenceSize(file, at);
        }
        at += length;
    }
    if (!size) {
        throw damaged();
    }
    return size;
}

// AV1 specification, 5.5.
function sequenceSize(file, start) {
    let bit = start * 8;
    const next = (count) => {
        let value = 0;
        for (let n = 0; n < count; n++, bit++) {
            value = value * 2 + (file.byte(Math.floor(bit / 8)) >> 7 - bit % 8 & 1);
        }
        return value;
    };
    next(4);  // profile, still
    if (next(1)) {  // reduced header
        next(5);
    } else {
        if (next(1)) {  // timing, which stills do not have
            throw damaged();
        }
        const hasDelay = next(1);
        for (let points = next(5) + 1; points > 0; points--) {
            next(12);
            if (next(5) > 7) {
                next(1);
            }
            if (hasDelay && next(1)) {
                next(4);
            }
        }
    }
    const widthBits = next(4) + 1, heightBits = next(4) + 1;
    return [next(widthBits) + 1, next(heightBits) + 1];
}

// --- limits ---------------------------------------------------------------------------------------------------------

// images: [[place, width, height]]. -> null, or { place, message } of the first image that passes a limit of the pool.
function excess(images, pool) {
    let sum = 0;
    for (const [place, width, height] of images) {
        const pixels = width * height;
        sum += pixels;
        if (pixels > pool.image_pixels) {
            return { place, message: `The image is too large: ${place} has ${width} x ${height} pixels, the limit is ${pool.image_pixels} pixels (media.max_decoded_pixels). Send it smaller.` };
        }
        if (sum > pool.request_pixels) {
            return { place, message: `The images of the request are too large: with ${place} of ${width} x ${height} they have ${sum} pixels, the limit is ${pool.request_pixels} (media.max_request_pixels). Send fewer or smaller images.` };
        }
    }
    return null;
}

export default { excess, FORMATS, read, Unreadable };
