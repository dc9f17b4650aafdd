"""Make a base of ours from what people have: a folder, a name on a hub, or one `.safetensors` file.

`assemble` puts a folder together with its encoders, `single_file` converts, `trial` tries it out.
"""
