"""The tabs of the page, one module each; a module offers `build_..._tab()`, called inside `gr.Tabs`."""
