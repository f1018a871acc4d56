"""What a page on 127.0.0.1 must refuse."""

import urllib.error
import urllib.request

import pytest


def check_only_the_page_is_served(url, file):
    """Ask for another file, as another host, and as pages of other sites and ports; then for the page itself."""
    upload = "gradio_api/upload"
    for path, headers, codes in (
        (f"gradio_api/file={file}", {}, (403, 404)),
        ("", {"Host": "evil.example"}, (403,)),
        ("", {"Origin": "https://evil.example"}, (403,)),
        (upload, {"Origin": "http://127.0.0.1:1"}, (403,)),
        (upload, {"Sec-Fetch-Site": "cross-site"}, (403,)),
        (upload, {"Sec-Fetch-Site": "same-site"}, (403,)),
    ):
        data = b"x" if path == upload else None
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url + path, data=data, headers=headers))
        assert refused.value.code in codes, (path, headers)
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Sec-Fetch-Site": "none"})) as page:
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
