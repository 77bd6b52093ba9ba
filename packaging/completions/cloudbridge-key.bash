# Completes cloudbridge-key. Written by make manuals, from --help.
_cloudbridge_key() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} at
    case $before in
    --secret-file | --secrets)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --expires | --bridges | --host | --prefix | --method)
        COMPREPLY=()
        return
        ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '--secret-file --secrets --modern --expires --bridges --host --prefix --method -h --help -v --version' -- "$word")
        return
    fi
    for at in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        case $at in
        add | check | narrow | show)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        hash)
            COMPREPLY=()
            return
            ;;
        esac
    done
    mapfile -t COMPREPLY < <(compgen -W 'add check hash narrow show' -- "$word")
}
complete -F _cloudbridge_key cloudbridge-key
