"""The tabs of the page. Each module has a `build_..._tab()` function, which is called inside `gr.Tabs`."""
