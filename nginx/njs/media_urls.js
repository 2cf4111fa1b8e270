// Decides which media URLs engines may fetch. Pure.
//
// Stricter than any URL parser: a URL that two parsers could read differently (a backslash, user information, a space,
// an address in another notation) is refused, because vLLM connects to the host that its own parser finds.

const LINK = /^https?:\/\/([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::\d{1,5})?(?:[\/?#][\x21-\x5b\x5d-\x7e]*)?$/i;

// The first link whose host is not in `domains`, or undefined.
function refused(links, domains) {
    return links.find((link) => {
        const match = LINK.exec(link);
        return !match || !domains.includes(match[1].toLowerCase());
    });
}

export default { refused };
