// Made by the controller from config/cluster.yaml. Do not edit: the next change writes it anew.
export default {
  "pools": {
    "qwen3-vl-2b": {
      "names": [
        "qwen3-vl-2b",
        "Qwen/Qwen3-VL-2B-Instruct"
      ],
      "next": "",
      "domains": [],
      "cache": null
    }
  },
  "auto": [
    {
      "pool": "qwen3-vl-2b",
      "min_images": 0,
      "min_videos": 0,
      "min_text_bytes": 0,
      "reasoning_effort": []
    }
  ],
  "hash_pictures": false
};
