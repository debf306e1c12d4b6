"""The executors that CI systems speak to: GitLab Runner's and GARM's."""
