// Made by the controller from config/cluster.yaml. Do not edit: the next change writes it anew.
export default {
  "pools": {
    "qwen3-vl-tiny": {
      "names": [
        "qwen3-vl-tiny"
      ],
      "next": "",
      "domains": [],
      "cache": null
    }
  },
  "auto": [
    {
      "pool": "qwen3-vl-tiny",
      "min_images": 0,
      "min_videos": 0,
      "min_text_bytes": 0,
      "reasoning_effort": []
    }
  ],
  "hash_pictures": false
};
