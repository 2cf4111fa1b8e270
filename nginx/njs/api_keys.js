// Who asks. Keys are looked up by their SHA-256 in a map made from the keys file, so comparing tells nothing about a key.

import crypto from 'crypto';

// $manyeyes_key_hash: of the key in `Authorization: Bearer KEY`, or of the password in `Basic`, which browsers send.
// The page says the name of its visitor's key instead.
function hash(r) {
    if (isPage(r)) {
        return `name:${r.headersIn['X-ManyEyes-Key'] || ''}`;
    }
    const [scheme, value] = (r.headersIn.Authorization || '').split(/ +/);
    const key = /^bearer$/i.test(scheme) ? value : /^basic$/i.test(scheme) ? password(value) : '';
    return key ? crypto.createHash('sha256').update(key).digest('hex') : '';
}

function password(encoded) {
    const text = Buffer.from(encoded || '', 'base64').toString();
    return text.slice(text.indexOf(':') + 1);
}

// Whether this caller may ask: the name of its key is known, or keys are not asked for.
function known(r) {
    return isPage(r) || Boolean(r.variables.manyeyes_key) || r.variables.manyeyes_anonymous === '1';
}

function isPage(r) {
    return r.variables.manyeyes_is_page === '1';
}

// What tells one asker from another when conversations are told apart: key, visit of the page, address.
function asker(r) {
    return r.variables.manyeyes_key + '\0' + (r.headersIn['X-ManyEyes-Page'] || r.remoteAddress);
}

export default { asker, hash, known };
