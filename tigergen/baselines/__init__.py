"""What one would do instead: the other methods of the paper's Tables 2 and 3, trained on the same cases as Tiger.

`methods` lists all rows of the comparison and needs no heavy library; `work` says what every generator is given and
returns; one module a family trains and draws: `latent` (Stable Diffusion, SD-S, SD-C, Tiger), `dit`, `imagen`, `pggan`.
"""
