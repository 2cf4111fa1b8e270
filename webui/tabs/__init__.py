"""The tabs of the page, one module each; a module offers `tab(page)`, called inside `gr.Tabs`."""
