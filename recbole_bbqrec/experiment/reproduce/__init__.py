"""The paper's tables and figures as experiments: one file each, the paper's figures beside ours."""
