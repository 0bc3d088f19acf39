/* What programs do with a volume through GlusterFS's own library: gfapi HOST VOLUME DIRECTORY BIG-MIB FILES.
 * Every check prints its line and errno and ends the program when it does not hold; "done N" at the end says how many
 * held. Two instances (`one`, `two`) are two clients. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glusterfs/api/glfs-handles.h>
#include <glusterfs/api/glfs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

static unsigned long checks;

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        errno = 0;                                                                                                    \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: not so: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno,              \
                    strerror(errno));                                                                                 \
            _exit(1);                                                                                                 \
        }                                                                                                             \
        checks++;                                                                                                     \
    } while (0)

/* The call fails with this errno and no other. */
#define FAILS(call, wanted)                                                                                           \
    do {                                                                                                              \
        errno = 0;                                                                                                    \
        long got_ = (long)(call);                                                                                     \
        if (got_ != -1 || errno != (wanted)) {                                                                        \
            fprintf(stderr, "%s:%d: %s gave %ld, errno %d (%s), not %s\n", __FILE__, __LINE__, #call, got_, errno,    \
                    strerror(errno), #wanted);                                                                        \
            _exit(1);                                                                                                 \
        }                                                                                                             \
        checks++;                                                                                                     \
    } while (0)

static const char *directory_name;

/* The path from the root of a name in our directory, for calls by handle, which know no working directory. */
static const char *from_root(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "/%s/%s", directory_name, name);
    return path;
}

static glfs_t *connect_to(const char *host, const char *volume)
{
    glfs_t *fs = glfs_new(volume);
    CHECK(fs != NULL);
    CHECK(glfs_set_volfile_server(fs, "tcp", host, 24007) == 0);
    CHECK(glfs_set_logging(fs, "/var/log/glusterfs/gfapi.log", 7) == 0);
    CHECK(glfs_init(fs) == 0);
    return fs;
}

/* Bytes that depend on file and position, so that no other file's bytes, and no other position's, pass for them. */
static void fill(unsigned char *to, size_t length, unsigned seed)
{
    unsigned state = seed * 2654435761u + 12345;
    for (size_t i = 0; i < length; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = state >> 24;
    }
}

static void write_file(glfs_t *fs, const char *path, size_t length, unsigned seed)
{
    unsigned char *data = malloc(length + 1);
    fill(data, length, seed);
    glfs_fd_t *fd;
    CHECK((fd = glfs_creat(fs, path, O_RDWR | O_EXCL, 0644)) != NULL);
    CHECK(glfs_write(fd, data, length, 0) == (ssize_t)length);
    CHECK(glfs_close(fd) == 0);
    free(data);
}

static void check_file(glfs_t *fs, const char *path, size_t length, unsigned seed)
{
    unsigned char *wanted = malloc(length + 1), *got = malloc(length + 2);
    fill(wanted, length, seed);
    glfs_fd_t *fd;
    CHECK((fd = glfs_open(fs, path, O_RDONLY)) != NULL);
    size_t have = 0;
    for (;;) {
        ssize_t more = glfs_read(fd, got + have, length + 1 - have, 0);
        CHECK(more >= 0);
        if (more == 0)
            break;
        have += more;
    }
    CHECK(have == length && memcmp(wanted, got, length) == 0);
    CHECK(glfs_close(fd) == 0);
    free(wanted);
    free(got);
}

static void trees(glfs_t *one, glfs_t *two)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 131072, 131073, 1000003};
    char path[256];
    CHECK(glfs_mkdir(one, "tree", 0755) == 0);
    FAILS(glfs_mkdir(one, "tree", 0755), EEXIST);
    FAILS(glfs_mkdir(one, "none/tree", 0755), ENOENT);
    for (int d = 0; d < 4; d++) {
        snprintf(path, sizeof path, "tree/d%d", d);
        CHECK(glfs_mkdir(one, path, 0755) == 0);
        for (unsigned f = 0; f < sizeof sizes / sizeof *sizes; f++) {
            snprintf(path, sizeof path, "tree/d%d/f%u", d, f);
            write_file(one, path, sizes[f], d * 100 + f);
        }
    }
    for (int d = 0; d < 4; d++) {
        unsigned seen = 0;
        snprintf(path, sizeof path, "tree/d%d", d);
        glfs_fd_t *dir;
        CHECK((dir = glfs_opendir(two, path)) != NULL);
        struct stat st;
        struct dirent *entry;
        while ((entry = glfs_readdirplus(dir, &st)) != NULL) {
            unsigned f;
            if (sscanf(entry->d_name, "f%u", &f) != 1)
                continue;
            CHECK((size_t)st.st_size == sizes[f] && S_ISREG(st.st_mode) && st.st_ino == entry->d_ino);
            seen++;
            snprintf(path, sizeof path, "tree/d%d/f%u", d, f);
            check_file(two, path, sizes[f], d * 100 + f);
        }
        CHECK(seen == sizeof sizes / sizeof *sizes);
        CHECK(glfs_closedir(dir) == 0);
    }
    FAILS(glfs_rmdir(one, "tree"), ENOTEMPTY);
    FAILS(glfs_unlink(one, "tree/nothing"), ENOENT);
    FAILS(glfs_unlink(one, "tree/d0"), EISDIR);
    FAILS(glfs_rmdir(one, "tree/d0/f0"), ENOTDIR);
}

static void renames_and_links(glfs_t *one, glfs_t *two)
{
    struct stat a, b;
    char target[64] = "";
    write_file(one, "r1", 1000, 1);
    write_file(one, "r2", 2000, 2);
    CHECK(glfs_stat(one, "r1", &a) == 0);
    CHECK(glfs_rename(one, "r1", "r2") == 0);
    CHECK(glfs_stat(two, "r2", &b) == 0 && a.st_ino == b.st_ino && b.st_size == 1000);
    FAILS(glfs_stat(two, "r1", &b), ENOENT);
    check_file(two, "r2", 1000, 1);
    CHECK(glfs_rename(one, "tree/d3", "moved") == 0);
    check_file(two, "moved/f3", 4096, 303);
    CHECK(glfs_mkdir(one, "empty", 0700) == 0);
    CHECK(glfs_rename(one, "moved", "empty") == 0);
    FAILS(glfs_rename(one, "empty", "tree"), ENOTEMPTY);
    FAILS(glfs_rename(one, "r2", "tree"), EISDIR);
    FAILS(glfs_rename(one, "empty", "r2"), EISDIR); /* so says the library itself, not the bricks */
    CHECK(glfs_rename(one, "empty", "tree/d3") == 0);

    CHECK(glfs_link(one, "r2", "hard") == 0);
    FAILS(glfs_link(one, "r2", "hard"), EEXIST);
    CHECK(glfs_stat(two, "hard", &b) == 0 && b.st_nlink == 2 && b.st_ino == a.st_ino);
    CHECK(glfs_unlink(one, "r2") == 0);
    CHECK(glfs_stat(one, "hard", &b) == 0 && b.st_nlink == 1);
    check_file(one, "hard", 1000, 1);
    CHECK(glfs_symlink(one, "hard", "soft") == 0);
    CHECK(glfs_readlink(two, "soft", target, sizeof target) == 4 && memcmp(target, "hard", 4) == 0);
    CHECK(glfs_lstat(two, "soft", &b) == 0 && S_ISLNK(b.st_mode));
    CHECK(glfs_stat(two, "soft", &b) == 0 && S_ISREG(b.st_mode) && b.st_ino == a.st_ino);
    CHECK(glfs_mknod(one, "fifo", S_IFIFO | 0600, 0) == 0);
    CHECK(glfs_lstat(two, "fifo", &b) == 0 && S_ISFIFO(b.st_mode));
    /* An unlinked file that is open can still be used. */
    glfs_fd_t *fd;
    CHECK((fd = glfs_creat(one, "orphan", O_RDWR, 0600)) != NULL);
    CHECK(glfs_unlink(one, "orphan") == 0);
    CHECK(glfs_write(fd, "still", 5, 0) == 5);
    CHECK(glfs_pread(fd, target, 5, 0, 0, NULL) == 5 && memcmp(target, "still", 5) == 0);
    CHECK(glfs_fstat(fd, &b) == 0 && b.st_size == 5);
    CHECK(glfs_close(fd) == 0);
}

static int has_name(const char *list, ssize_t length, const char *name)
{
    for (const char *at = list; at < list + length; at += strlen(at) + 1)
        if (strcmp(at, name) == 0)
            return 1;
    return 0;
}

static void xattrs(glfs_t *one, glfs_t *two)
{
    char value[70000], list[4096];
    ssize_t length;
    write_file(one, "x", 10, 9);
    CHECK(glfs_setxattr(one, "x", "user.a", "first", 5, XATTR_CREATE) == 0);
    FAILS(glfs_setxattr(one, "x", "user.a", "again", 5, XATTR_CREATE), EEXIST);
    FAILS(glfs_setxattr(one, "x", "user.none", "v", 1, XATTR_REPLACE), ENODATA);
    CHECK(glfs_setxattr(one, "x", "user.a", "second!", 7, XATTR_REPLACE) == 0);
    CHECK(glfs_getxattr(two, "x", "user.a", value, sizeof value) == 7 && memcmp(value, "second!", 7) == 0);
    CHECK(glfs_getxattr(two, "x", "user.a", NULL, 0) == 7);
    FAILS(glfs_getxattr(two, "x", "user.a", value, 3), ERANGE);
    FAILS(glfs_getxattr(two, "x", "user.b", value, sizeof value), ENODATA);
    memset(value, 'v', 2000);
    value[1000] = 0;
    CHECK(glfs_setxattr(one, "x", "user.binary", value, 2000, 0) == 0);
    memset(value, 0, sizeof value);
    CHECK(glfs_getxattr(one, "x", "user.binary", value, sizeof value) == 2000 && value[999] == 'v' && value[1000] == 0 &&
          value[1999] == 'v');
    CHECK((length = glfs_listxattr(two, "x", list, sizeof list)) > 0);
    CHECK(has_name(list, length, "user.a") && has_name(list, length, "user.binary"));
    CHECK(!has_name(list, length, "trusted.gfid"));
    CHECK(glfs_removexattr(one, "x", "user.a") == 0);
    FAILS(glfs_removexattr(one, "x", "user.a"), ENODATA);
    FAILS(glfs_getxattr(two, "x", "user.a", value, sizeof value), ENODATA);
    glfs_fd_t *fd;
    CHECK((fd = glfs_open(one, "x", O_RDWR)) != NULL);
    CHECK(glfs_fsetxattr(fd, "user.f", "fd", 2, 0) == 0);
    CHECK(glfs_fgetxattr(fd, "user.f", value, sizeof value) == 2 && memcmp(value, "fd", 2) == 0);
    CHECK((length = glfs_flistxattr(fd, list, sizeof list)) > 0 && has_name(list, length, "user.f"));
    CHECK(glfs_fremovexattr(fd, "user.f") == 0);
    FAILS(glfs_fgetxattr(fd, "user.f", value, sizeof value), ENODATA);
    CHECK(glfs_close(fd) == 0);
    CHECK(glfs_setxattr(one, "tree", "user.d", "dir", 3, 0) == 0);
    CHECK(glfs_getxattr(two, "tree", "user.d", value, sizeof value) == 3);
    CHECK((length = glfs_getxattr(one, "x", "trusted.glusterfs.pathinfo", value, sizeof value - 1)) > 0);
    value[length] = 0;
    CHECK(strstr(value, "POSIX") != NULL && strstr(value, "/x") != NULL);
}

static void acls(glfs_t *one, glfs_t *two)
{
    struct stat st;
    glfs_object_t *object, *directory;
    write_file(one, "acl", 10, 5);
    CHECK((object = glfs_h_lookupat(one, NULL, from_root("acl"), &st, 0)) != NULL);
    acl_t acl;
    CHECK((acl = acl_from_text("u::rw-,u:1234:r--,g::r--,m::r--,o::---")) != NULL);
    CHECK(glfs_h_acl_set(one, object, ACL_TYPE_ACCESS, acl) == 0);
    acl_free(acl);
    glfs_object_t *seen;
    CHECK((seen = glfs_h_lookupat(two, NULL, from_root("acl"), &st, 0)) != NULL);
    CHECK((st.st_mode & 0777) == 0640);
    CHECK((acl = glfs_h_acl_get(two, seen, ACL_TYPE_ACCESS)) != NULL);
    char *text = acl_to_text(acl, NULL);
    CHECK(text != NULL && strstr(text, "user:1234:r--") != NULL && strstr(text, "mask::r--") != NULL);
    acl_free(text);
    acl_free(acl);
    /* The bricks decide by it. */
    CHECK(glfs_setfsuid(1234) == 0 && glfs_setfsgid(1234) == 0);
    glfs_fd_t *fd;
    CHECK((fd = glfs_open(two, "acl", O_RDONLY)) != NULL);
    CHECK(glfs_close(fd) == 0);
    CHECK(glfs_open(two, "acl", O_RDWR) == NULL && errno == EACCES);
    CHECK(glfs_setfsuid(4321) == 0 && glfs_setfsgid(4321) == 0);
    CHECK(glfs_open(two, "acl", O_RDONLY) == NULL && errno == EACCES);
    CHECK(glfs_setfsuid(0) == 0 && glfs_setfsgid(0) == 0);
    /* A directory's default ACL is what its new files get. */
    CHECK(glfs_mkdir(one, "acldir", 0755) == 0);
    CHECK((directory = glfs_h_lookupat(one, NULL, from_root("acldir"), &st, 0)) != NULL);
    CHECK((acl = acl_from_text("u::rwx,u:1234:rwx,g::r-x,m::rwx,o::---")) != NULL);
    CHECK(glfs_h_acl_set(one, directory, ACL_TYPE_DEFAULT, acl) == 0);
    acl_free(acl);
    write_file(one, "acldir/heir", 3, 1);
    glfs_object_t *heir;
    CHECK((heir = glfs_h_lookupat(one, NULL, from_root("acldir/heir"), &st, 0)) != NULL);
    CHECK((acl = glfs_h_acl_get(one, heir, ACL_TYPE_ACCESS)) != NULL);
    text = acl_to_text(acl, NULL);
    CHECK(text != NULL && strstr(text, "user:1234:rwx") != NULL && (st.st_mode & 07) == 0);
    acl_free(text);
    acl_free(acl);
    CHECK(glfs_h_close(object) == 0 && glfs_h_close(seen) == 0 && glfs_h_close(directory) == 0 && glfs_h_close(heir) == 0);
}

static void sizes_and_space(glfs_t *one, glfs_t *two)
{
    struct stat st;
    char data[64];
    write_file(one, "t", 10000, 3);
    CHECK(glfs_truncate(one, "t", 5000) == 0);
    check_file(two, "t", 5000, 3);
    CHECK(glfs_truncate(one, "t", 3000000) == 0);
    glfs_fd_t *fd;
    CHECK((fd = glfs_open(one, "t", O_RDWR)) != NULL);
    CHECK(glfs_pread(fd, data, 10, 2999995, 0, NULL) == 5 && memcmp(data, "\0\0\0\0\0", 5) == 0);
    CHECK(glfs_ftruncate(fd, 100, NULL, NULL) == 0);
    CHECK(glfs_fstat(fd, &st) == 0 && st.st_size == 100);
    CHECK(glfs_fallocate(fd, 0, 0, 100000) == 0);
    CHECK(glfs_fstat(fd, &st) == 0 && st.st_size == 100000 && st.st_blocks * 512 >= 100000);
    CHECK(glfs_fallocate(fd, 1, 100000, 100000) == 0);
    CHECK(glfs_fstat(fd, &st) == 0 && st.st_size == 100000);
    CHECK(glfs_pwrite(fd, "mark", 4, 50000, 0, NULL, NULL) == 4);
    CHECK(glfs_discard(fd, 49152, 8192) == 0);
    CHECK(glfs_pread(fd, data, 4, 50000, 0, NULL) == 4 && memcmp(data, "\0\0\0\0", 4) == 0);
    CHECK(glfs_pwrite(fd, "mark", 4, 10, 0, NULL, NULL) == 4);
    CHECK(glfs_zerofill(fd, 8, 8) == 0);
    CHECK(glfs_pread(fd, data, 4, 10, 0, NULL) == 4 && memcmp(data, "\0\0\0\0", 4) == 0);
    CHECK(glfs_fsync(fd, NULL, NULL) == 0 && glfs_fdatasync(fd, NULL, NULL) == 0);
    CHECK(glfs_close(fd) == 0);
    /* Holes. */
    CHECK((fd = glfs_creat(one, "holes", O_RDWR, 0644)) != NULL);
    CHECK(glfs_pwrite(fd, "data", 4, 1 << 20, 0, NULL, NULL) == 4);
    CHECK(glfs_ftruncate(fd, 4 << 20, NULL, NULL) == 0);
    CHECK(glfs_lseek(fd, 0, SEEK_DATA) == 1 << 20);
    CHECK(glfs_lseek(fd, 0, SEEK_HOLE) == 0);
    off_t hole = glfs_lseek(fd, 1 << 20, SEEK_HOLE);
    CHECK(hole > 1 << 20 && hole < 4 << 20);
    FAILS(glfs_lseek(fd, 2 << 20, SEEK_DATA), ENXIO);
    CHECK(glfs_lseek(fd, -4, SEEK_END) == (4 << 20) - 4);
    CHECK(glfs_lseek(fd, 6, SEEK_SET) == 6 && glfs_lseek(fd, 4, SEEK_CUR) == 10);
    /* No glfs_copy_file_range: cluster/replicate of 10.3 hands it to one brick only, on volumes of its own too. */
    CHECK(glfs_close(fd) == 0);
    struct statvfs space;
    CHECK(glfs_statvfs(one, "/", &space) == 0 && space.f_blocks > 0 && space.f_bavail <= space.f_blocks);
}

static void attributes(glfs_t *one, glfs_t *two)
{
    struct stat st;
    struct timespec times[2] = {{1000000001, 7}, {1500000002, 999999999}};
    write_file(one, "attr", 1, 1);
    CHECK(glfs_chmod(one, "attr", 04751) == 0 && glfs_stat(one, "attr", &st) == 0 && (st.st_mode & 07777) == 04751);
    /* The other client looks once: its cache may show it the past for a second. */
    CHECK(glfs_chown(one, "attr", 77, 88) == 0 && glfs_utimens(one, "attr", times) == 0);
    CHECK(glfs_stat(two, "attr", &st) == 0 && st.st_uid == 77 && st.st_gid == 88 && (st.st_mode & 0777) == 0751);
    CHECK(st.st_mtim.tv_sec == 1500000002 && st.st_mtim.tv_nsec == 999999999 && st.st_atim.tv_sec == 1000000001);
    CHECK(glfs_chmod(one, "attr", 0600) == 0 && glfs_chown(one, "attr", 0, 0) == 0);
    CHECK(glfs_access(one, "attr", R_OK | W_OK) == 0);
    CHECK(glfs_setfsuid(99) == 0 && glfs_setfsgid(99) == 0);
    CHECK(glfs_open(one, "attr", O_RDONLY) == NULL && errno == EACCES);
    FAILS(glfs_chmod(one, "attr", 0666), EPERM);
    CHECK(glfs_setfsuid(0) == 0 && glfs_setfsgid(0) == 0);
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = 0;
    FAILS(glfs_mkdir(one, name, 0755), ENAMETOOLONG);
    name[255] = 0;
    CHECK(glfs_mkdir(one, name, 0755) == 0 && glfs_rmdir(two, name) == 0);
    char uuid[16];
    CHECK(glfs_get_volumeid(one, uuid, sizeof uuid) == 16);
    char here[256];
    CHECK(glfs_chdir(one, "tree/d1") == 0 && glfs_stat(one, "f1", &st) == 0 && st.st_size == 1);
    CHECK(glfs_getcwd(one, here, sizeof here) != NULL && strstr(here, "/tree/d1") != NULL);
    CHECK(glfs_chdir(one, "../..") == 0);
}

/* Two clients append to one file: no line may be lost. */
static void appends(glfs_t *one, glfs_t *two)
{
    glfs_fd_t *a, *b;
    char line[32], *all = calloc(1, 1 << 16);
    CHECK((a = glfs_creat(one, "log", O_WRONLY | O_APPEND, 0644)) != NULL);
    CHECK((b = glfs_open(two, "log", O_WRONLY | O_APPEND)) != NULL);
    for (int i = 0; i < 100; i++) {
        snprintf(line, sizeof line, "one %03d\n", i);
        CHECK(glfs_write(a, line, 8, 0) == 8);
        snprintf(line, sizeof line, "two %03d\n", i);
        CHECK(glfs_write(b, line, 8, 0) == 8);
    }
    CHECK(glfs_close(a) == 0 && glfs_close(b) == 0);
    CHECK((a = glfs_open(one, "log", O_RDONLY)) != NULL);
    CHECK(glfs_read(a, all, 1 << 16, 0) == 1600);
    for (int i = 0; i < 100; i++) {
        snprintf(line, sizeof line, "one %03d\n", i);
        CHECK(strstr(all, line) != NULL);
        snprintf(line, sizeof line, "two %03d\n", i);
        CHECK(strstr(all, line) != NULL);
    }
    CHECK(glfs_close(a) == 0);
    free(all);
}

static struct flock range(short kind, off_t start, off_t length)
{
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return lock;
}

static void locks(glfs_t *one, glfs_t *two)
{
    glfs_fd_t *a, *b;
    struct flock lock;
    CHECK((a = glfs_creat(one, "locked", O_RDWR, 0644)) != NULL);
    CHECK((b = glfs_open(two, "locked", O_RDWR)) != NULL);
    CHECK(glfs_fd_set_lkowner(a, "owner of one", 12) == 0);
    CHECK(glfs_fd_set_lkowner(b, "owner of two", 12) == 0);
    lock = range(F_WRLCK, 0, 100);
    CHECK(glfs_posix_lock(a, F_SETLK, &lock) == 0);
    lock = range(F_WRLCK, 50, 100);
    CHECK(glfs_posix_lock(b, F_SETLK, &lock) == -1 && (errno == EAGAIN || errno == EACCES));
    lock = range(F_WRLCK, 50, 100);
    CHECK(glfs_posix_lock(b, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK && lock.l_start == 0 && lock.l_len == 100);
    lock = range(F_WRLCK, 100, 100);
    CHECK(glfs_posix_lock(b, F_SETLK, &lock) == 0);
    /* Giving up the middle leaves two locks. */
    lock = range(F_UNLCK, 40, 20);
    CHECK(glfs_posix_lock(a, F_SETLK, &lock) == 0);
    lock = range(F_RDLCK, 40, 20);
    CHECK(glfs_posix_lock(b, F_SETLK, &lock) == 0);
    lock = range(F_RDLCK, 60, 1);
    CHECK(glfs_posix_lock(b, F_SETLK, &lock) == -1);
    /* Readers share. */
    lock = range(F_RDLCK, 40, 20);
    CHECK(glfs_posix_lock(a, F_SETLK, &lock) == 0);
    lock = range(F_WRLCK, 40, 20);
    CHECK(glfs_posix_lock(a, F_SETLK, &lock) == -1);
    /* Closing lets go. */
    CHECK(glfs_close(a) == 0);
    lock = range(F_WRLCK, 0, 0);
    CHECK(glfs_posix_lock(b, F_SETLKW, &lock) == 0);
    CHECK(glfs_close(b) == 0);
}

struct async {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    int left;
    ssize_t bytes;
};

static void note(glfs_fd_t *fd, ssize_t ret, struct glfs_stat *pre, struct glfs_stat *post, void *data)
{
    struct async *all = data;
    (void)fd, (void)pre, (void)post;
    pthread_mutex_lock(&all->mutex);
    all->bytes += ret;
    if (--all->left == 0)
        pthread_cond_signal(&all->ended);
    pthread_mutex_unlock(&all->mutex);
}

static void await(struct async *all)
{
    pthread_mutex_lock(&all->mutex);
    while (all->left > 0)
        pthread_cond_wait(&all->ended, &all->mutex);
    pthread_mutex_unlock(&all->mutex);
}

/* 64 writes under way at once, then as many reads. */
static void asynchronous(glfs_t *one, glfs_t *two)
{
    enum { COUNT = 64, SIZE = 65536 };
    unsigned char *data = malloc(COUNT * SIZE), *got = calloc(COUNT, SIZE);
    fill(data, COUNT * SIZE, 77);
    glfs_fd_t *fd;
    struct async all = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, COUNT, 0};
    CHECK((fd = glfs_creat(one, "async", O_RDWR, 0644)) != NULL);
    for (int i = 0; i < COUNT; i++)
        CHECK(glfs_pwrite_async(fd, data + i * SIZE, SIZE, i * SIZE, 0, note, &all) == 0);
    await(&all);
    CHECK(all.bytes == COUNT * SIZE);
    CHECK(glfs_close(fd) == 0);
    all.left = COUNT, all.bytes = 0;
    CHECK((fd = glfs_open(two, "async", O_RDONLY)) != NULL);
    for (int i = 0; i < COUNT; i++)
        CHECK(glfs_pread_async(fd, got + i * SIZE, SIZE, i * SIZE, 0, note, &all) == 0);
    await(&all);
    CHECK(all.bytes == COUNT * SIZE && memcmp(data, got, COUNT * SIZE) == 0);
    CHECK(glfs_close(fd) == 0);
    free(data);
    free(got);
}

/* As NFS and SMB servers work: by handles that outlive everything. */
static void handles(glfs_t *one, glfs_t *two)
{
    struct stat st;
    unsigned char handle[GFAPI_HANDLE_LENGTH];
    char data[16];
    glfs_object_t *root, *directory, *file, *again;
    CHECK((root = glfs_h_lookupat(one, NULL, "/", &st, 0)) != NULL && S_ISDIR(st.st_mode));
    CHECK((directory = glfs_h_lookupat(one, NULL, from_root("tree"), &st, 0)) != NULL);
    CHECK((file = glfs_h_creat(one, directory, "by-handle", O_RDWR, 0644, &st)) != NULL);
    CHECK(glfs_h_extract_handle(file, handle, sizeof handle) == GFAPI_HANDLE_LENGTH);
    CHECK(glfs_h_anonymous_write(one, file, "anonymous", 9, 0) == 9);
    glfs_fd_t *fd;
    CHECK((fd = glfs_h_open(one, file, O_RDWR)) != NULL && glfs_fsync(fd, NULL, NULL) == 0 && glfs_close(fd) == 0);
    CHECK((again = glfs_h_create_from_handle(two, handle, sizeof handle, &st)) != NULL && st.st_size == 9);
    CHECK(glfs_h_anonymous_read(two, again, data, 9, 0) == 9 && memcmp(data, "anonymous", 9) == 0);
    CHECK(glfs_h_truncate(two, again, 4) == 0 && glfs_h_getattrs(two, again, &st) == 0 && st.st_size == 4);
    CHECK(glfs_h_setxattrs(one, file, "user.h", "h", 1, 0) == 0 && glfs_h_getxattrs(two, again, "user.h", data, 16) == 1);
    CHECK(glfs_h_link(one, file, directory, "second-name") == 0);
    CHECK((fd = glfs_h_open(two, again, O_RDWR)) != NULL && glfs_write(fd, "open", 4, 0) == 4 && glfs_close(fd) == 0);
    CHECK(glfs_h_unlink(one, directory, "second-name") == 0);
    CHECK(glfs_h_close(root) == 0 && glfs_h_close(directory) == 0 && glfs_h_close(file) == 0 && glfs_h_close(again) == 0);
}

static void many_files(glfs_t *one, glfs_t *two, int count)
{
    char path[64];
    glfs_fd_t *fd, *dir;
    CHECK(glfs_mkdir(one, "many", 0755) == 0);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "many/file-%06d", i);
        CHECK((fd = glfs_creat(one, path, O_WRONLY, 0644)) != NULL && glfs_close(fd) == 0);
    }
    char *seen = calloc(count, 1);
    int found = 0, index;
    long middle = 0;
    char after_middle[256] = "";
    struct dirent *entry;
    CHECK((dir = glfs_opendir(two, "many")) != NULL);
    while ((entry = glfs_readdir(dir)) != NULL) {
        if (middle != 0 && after_middle[0] == 0)
            strcpy(after_middle, entry->d_name);
        if (sscanf(entry->d_name, "file-%d", &index) != 1)
            continue;
        CHECK(index >= 0 && index < count && !seen[index]);
        seen[index] = 1;
        if (++found == count / 2)
            middle = glfs_telldir(dir);
    }
    CHECK(found == count);
    glfs_seekdir(dir, middle);
    CHECK((entry = glfs_readdir(dir)) != NULL && strcmp(entry->d_name, after_middle) == 0);
    CHECK(glfs_closedir(dir) == 0);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "many/file-%06d", i);
        CHECK(glfs_unlink(i % 2 ? one : two, path) == 0);
    }
    CHECK(glfs_rmdir(two, "many") == 0);
    free(seen);
}

static void big_file(glfs_t *one, glfs_t *two, long mib)
{
    enum { BLOCK = 1 << 20 };
    unsigned char *data = malloc(BLOCK), *got = malloc(BLOCK);
    glfs_fd_t *fd;
    CHECK((fd = glfs_creat(one, "big", O_WRONLY, 0644)) != NULL);
    for (long i = 0; i < mib; i++) {
        fill(data, BLOCK, i);
        CHECK(glfs_write(fd, data, BLOCK, 0) == BLOCK);
    }
    CHECK(glfs_fsync(fd, NULL, NULL) == 0 && glfs_close(fd) == 0);
    CHECK((fd = glfs_open(two, "big", O_RDONLY)) != NULL);
    for (long i = 0; i < mib; i++) {
        fill(data, BLOCK, i);
        size_t have = 0;
        while (have < BLOCK) {
            ssize_t more = glfs_read(fd, got + have, BLOCK - have, 0);
            CHECK(more > 0);
            have += more;
        }
        CHECK(memcmp(data, got, BLOCK) == 0);
    }
    CHECK(glfs_close(fd) == 0);
    CHECK(glfs_unlink(one, "big") == 0);
    free(data);
    free(got);
}

int main(int argc, char **argv)
{
    CHECK(argc == 6);
    directory_name = argv[3];
    glfs_t *one = connect_to(argv[1], argv[2]);
    glfs_t *two = connect_to(argv[1], argv[2]);
    CHECK(glfs_mkdir(one, argv[3], 0755) == 0);
    CHECK(glfs_chdir(one, argv[3]) == 0);
    CHECK(glfs_chdir(two, argv[3]) == 0);
    struct step {
        const char *name;
        void (*run)(glfs_t *, glfs_t *);
    } steps[] = {{"trees", trees},
                 {"renames and links", renames_and_links},
                 {"xattrs", xattrs},
                 {"acls", acls},
                 {"sizes and space", sizes_and_space},
                 {"attributes", attributes},
                 {"appends", appends},
                 {"locks", locks},
                 {"asynchronous", asynchronous},
                 {"handles", handles}};
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        steps[i].run(one, two);
        printf("%s: ok\n", steps[i].name);
        fflush(stdout);
    }
    many_files(one, two, atoi(argv[5]));
    printf("many files: ok\n");
    big_file(one, two, atol(argv[4]));
    printf("big file: ok\n");
    CHECK(glfs_fini(two) == 0);
    CHECK(glfs_fini(one) == 0);
    printf("done %lu\n", checks);
    return 0;
}
