// Authenticates clients. Keys are looked up by their SHA-256 in a map rendered from the keys file, so the time of a
// comparison reveals nothing about a key.

import crypto from 'crypto';

// $manyeyes_key_hash: hash of the key in `Authorization: Bearer KEY`, or of the password in `Basic`, which browsers
// send. The web page sends the name of its user's key instead.
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

// Whether the client is authorized: its key is known, or no key is required.
function isAuthorized(r) {
    return isPage(r) || Boolean(r.variables.manyeyes_key) || r.variables.manyeyes_anonymous === '1';
}

function isPage(r) {
    return r.variables.manyeyes_is_page === '1';
}

// Identifies a client in session affinity: its key, and its session of the page or its address.
function clientId(r) {
    return r.variables.manyeyes_key + '\0' + (r.headersIn['X-ManyEyes-Page'] || r.remoteAddress);
}

export default { clientId, hash, isAuthorized };
