from gradtwin.comparisons.cli import main

main()
